"""The crops that a loader makes of each image: their boxes, their sizes, and their places in one buffer.

The buffer of a batch holds view after view, and in a view image after image: uint8 (side, side, 3) each.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from fixres.pipelines.sampling.crops import Boxes, crop_boxes, seed_of_view
from fixres.pipelines.spec import Crop, InputError, ViewGroup


class Places(NamedTuple):
    """Where the crops of n images lie in a buffer: crop k of image i begins at starts[k] + i * 3 * sides[k]**2."""

    starts: np.ndarray  # int64 (v,)
    sides: np.ndarray  # int64 (v,), pixels
    size: int  # bytes of the buffer

    def of(self, image: int) -> Places:
        """The places that begin with this image."""
        return self._replace(starts=self.starts + image * 3 * self.sides**2)

    def views(self, buffer: np.ndarray, num_images: int) -> list[np.ndarray]:
        """uint8 (num_images, side, side, 3) for each view, in the buffer."""
        parts = zip(self.starts.tolist(), self.sides.tolist(), strict=True)
        return [buffer[at : at + num_images * 3 * side**2].reshape(num_images, side, side, 3) for at, side in parts]

    def crops(self, buffer: np.ndarray, image: int) -> list[np.ndarray]:
        """uint8 (side, side, 3) for each view of an image, in the buffer."""
        parts = zip(self.of(image).starts.tolist(), self.sides.tolist(), strict=True)
        return [buffer[at : at + 3 * side**2].reshape(side, side, 3) for at, side in parts]


def stacked(views: Sequence[Boxes]) -> Boxes:
    """Boxes as kernels take them: float64 (n, v, 4), bool (n, v) and (n, v)."""
    boxes = Boxes(*(np.stack(fields, 1) for fields in zip(*views, strict=True)))
    return boxes._replace(yxhw=boxes.yxhw.astype(np.float64))


class Views:
    """One or more crops of each image.

    Args:
        crop: of the first group, and of the others apart from their scale.
        groups: empty for one crop; then images are not stacked.
        seed: the first view's boxes are those of a loader of one view with this seed.
    """

    def __init__(self, crop: Crop, groups: Sequence[ViewGroup], seed: int) -> None:
        self._groups, self._is_single = tuple(groups) or (ViewGroup(1),), not groups
        of_groups = [crop if group.scale is None else replace(crop, scale=group.scale) for group in self._groups]
        self._crops = [crop for crop, group in zip(of_groups, self._groups, strict=True) for _ in range(group.num)]
        self.seed = seed

    def __len__(self) -> int:
        return len(self._crops)

    def reseeded(self, seed: int) -> Views:
        """The same crops with other random numbers."""
        other = copy(self)
        other.seed = seed
        return other

    @property
    def has_resolution(self) -> bool:
        """Whether a group takes the loader's resolution."""
        return any(group.resolution is None for group in self._groups)

    def sides(self, resolution: int) -> np.ndarray:
        """int64 (v,): pixels."""
        return np.array([group.resolution or resolution for group in self._groups for _ in range(group.num)], np.int64)

    def places(self, resolution: int, num_images: int) -> Places:
        """The layout of a buffer for `num_images`."""
        sides = self.sides(resolution)
        sizes = 3 * sides**2 * num_images
        return Places(np.cumsum(sizes) - sizes, sides, int(sizes.sum()))

    def boxes(self, epoch: int, draws: np.ndarray, sizes: np.ndarray, resolution: int) -> list[Boxes]:
        """The boxes of each view of n images, whose int64 (n, 2) heights and widths are `sizes`."""
        wanted = zip(self._crops, self.sides(resolution).tolist(), strict=True)
        return [
            crop_boxes(crop, seed_of_view(self.seed, view), epoch, draws, sizes, side)
            for view, (crop, side) in enumerate(wanted)
        ]

    def images(self, buffer: torch.Tensor, resolution: int, num_images: int) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """`spec.Batch.images` of a filled buffer."""
        sides = [group.resolution or resolution for group in self._groups]
        shapes = [(group.num, num_images, side, side, 3) for group, side in zip(self._groups, sides, strict=True)]
        parts = torch.split(buffer, [int(np.prod(shape)) for shape in shapes])
        images = tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
        return images[0][0] if self._is_single else images


def apply(function: object, crops: Sequence[np.ndarray]) -> None:
    """Replaces crops by what a user's function makes of them.

    Raises:
        InputError: the function returned another type or shape.
    """
    for crop in crops:
        made = function(crop)
        if made is not crop:
            if getattr(made, "dtype", None) != np.uint8 or np.shape(made) != crop.shape:
                kind = f"{getattr(made, 'dtype', type(made).__name__)} of shape {np.shape(made)}"
                raise InputError(f"per_image returned {kind}; it must return a uint8 array of shape {crop.shape}")
            crop[...] = made

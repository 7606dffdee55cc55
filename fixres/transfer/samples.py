"""Images with their boxes or masks as torchvision's tv_tensors, and the transforms of training.

Images are used whole, or nearly: a detector sees all of an image, so reading only a crop saves nothing. A sample's
random numbers depend on (seed, epoch, index) alone, not on workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from fixres.config.transfer import SegmentRecipe
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.images.input_formats import named_errors, open_image, orientation, rotate_upright
from fixres.pipelines.spec import IMAGENET_MEAN, InputError
from fixres.training.rng import mixed
from fixres.transfer.layouts.annotations import BoxedImage
from fixres.transfer.layouts.masks import IGNORED, MaskData, MaskedImage

Transform = Callable[[Any, Any], tuple[Any, Any]]
_INDEXED = ("1", "L", "P", "I", "I;16")  # modes of masks
_MAX_ASPECT = 32  # a longer image takes gigabytes with its short side scaled, or has no short side left


class Sample(NamedTuple):
    """An image and what is known about it.

    Attributes:
        image: uint8 (3, H, W).
        target: a dict with boxes float32 (N, 4) and labels int64 (N,), from 1, because 0 is the background; or a mask
            uint8 (H, W).
        index: position in the data set.
    """

    image: Tensor
    target: Any
    index: int


class SampleDataset(Dataset):
    """Samples by (epoch, index). What is wrong with one is returned as an InputError.

    The training process raises it. torch would add the traceback of the worker process to the message.

    Args:
        images: BoxedImage or MaskedImage.
        read: reads one of them.
        transform: of image and target together; None in testing.
        seed: of the transform.
    """

    def __init__(
        self, images: Sequence[Any], read: Callable[[Any], tuple[Any, Any]], transform: Transform | None, seed: int
    ) -> None:
        self.images, self._read, self._transform, self._seed = images, read, transform, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: tuple[int, int]) -> Sample | InputError:
        epoch, index = place
        try:
            image, target = self._read(self.images[index])
        except InputError as error:
            return error
        except OSError as error:
            return InputError(f"{error.filename}: {error.strerror or error}; restore it, or remove it from the list")
        if self._transform is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(mixed(self._seed, epoch, index))
                image, target = self._transform(image, target)
        return Sample(image, target, index)


def read_boxed(one: BoxedImage) -> tuple[tv_tensors.Image, dict[str, Tensor]]:
    """The image, and the boxes that are not ignored.

    Raises:
        InputError: not an image, or not as annotated.
    """
    image = _read_image(one.path, one.height, one.width)
    kept = ~one.ignored
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(one.boxes[kept]), format="XYXY", canvas_size=(one.height, one.width)
    )
    return image, {"boxes": boxes, "labels": torch.from_numpy(one.labels[kept]) + 1}


class MaskReader:
    """Reads images with masks; labels are in [0, classes), or 255 for ignored pixels."""

    def __init__(self, data: MaskData) -> None:
        self._first, self._num_classes = data.first, len(data.classes)

    def __call__(self, one: MaskedImage) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Image uint8 (3, H, W) and mask uint8 (H, W).

        Raises:
            InputError: not an image, a mask of another size, or a number that is no class.
        """
        with open_image(one.mask.read_bytes(), str(one.mask)) as picture:
            if picture.mode not in _INDEXED:
                raise InputError(f"{one.mask}: a picture of mode {picture.mode}; a mask has one number in each pixel")
            with named_errors(str(one.mask), -1):
                numbers = np.array(picture).astype(np.int64)
        image = _read_image(one.path, *numbers.shape, f"its mask {one.mask}")
        is_class = (numbers >= self._first) & (numbers < self._first + self._num_classes)
        is_ignored = (numbers == 0) if self._first else (numbers == IGNORED)
        if not (is_class | is_ignored).all():
            unknown = int(numbers[~(is_class | is_ignored)][0])
            raise InputError(
                f"{one.mask}: number {unknown} is an unknown class; the {self._num_classes} classes are from "
                f"{self._first} on"
            )
        mask = np.where(is_ignored, IGNORED, numbers - self._first).astype(np.uint8)
        return image, tv_tensors.Mask(torch.from_numpy(mask))


def _read_image(path: Path, height: int, width: int, annotation: str = "its annotation") -> tv_tensors.Image:
    """The pixels that were annotated: turned as the EXIF orientation says if only then they have the annotated size.

    Raises:
        InputError: not an image, of another size, or the annotation fits with and without the EXIF orientation.
    """
    data = path.read_bytes()
    stored = Image.fromarray(decode_rgb(data, str(path)))
    with open_image(data, str(path)) as header:
        turn = orientation(header)
    fitting = [one for one in (stored, rotate_upright(stored, turn)) if one.size == (width, height)]
    if not fitting:
        size = f"{stored.width} x {stored.height} pixels"
        raise InputError(f"{path} has {size}, {annotation} {width} x {height}; correct one of them")
    if turn != 1 and len(fitting) == 2:
        raise InputError(
            f"{path}: {annotation} fits with and without the EXIF orientation {turn}; store the picture as it was "
            "annotated, without that entry (mogrify -auto-orient turns it as viewers do)"
        )
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise InputError(f"{path}: one side is more than {_MAX_ASPECT} times the other; crop it, or leave it out")
    return tv_tensors.Image(torch.from_numpy(np.array(fitting[0])).permute(2, 0, 1).contiguous())


def box_transform(hflip: float) -> Transform:
    """A flip; the detector resizes images itself."""
    return v2.RandomHorizontalFlip(hflip)


def mask_transform(recipe: SegmentRecipe) -> Transform:
    """Random scale, crop and flip of image and mask together; padding has the mean color and does not count."""
    low, high = (max(1, round(recipe.base_size * factor)) for factor in recipe.scale)
    color = [round(255 * value) for value in IMAGENET_MEAN]
    return v2.Compose(
        [
            v2.RandomResize(low, high + 1, antialias=True),
            v2.RandomCrop(
                recipe.crop_size, pad_if_needed=True, fill={tv_tensors.Image: color, tv_tensors.Mask: IGNORED}
            ),
            v2.RandomHorizontalFlip(recipe.hflip),
        ]
    )

"""`fixres.CropDataset`: crops of stored images as a data set for `torch.utils.data.DataLoader`."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fixres.api.calls import checked, options_as_keywords
from fixres.api.splits import chosen_crop, stored_images
from fixres.api.views import ViewSettings, view_groups
from fixres.pipelines.loaders.base import retry_next
from fixres.pipelines.loaders.crop_reader import CropReader, Draw
from fixres.pipelines.loaders.views import Views
from fixres.pipelines.sampling.draws import candidates
from fixres.pipelines.sampling.philox import MAX_EPOCH
from fixres.pipelines.spec import (
    BadSampleError,
    Crop,
    EvalCrop,
    InputError,
    TrainCrop,
    TrainInterpolation,
    check_resolution,
    check_seed,
)

Sample = tuple[Any, Any]


class CropDataset(Dataset[Sample]):
    """Resized crops of stored images, with random access: `ImageFolder` whose RandomResizedCrop comes first.

    Only the crop is decoded, of untouched images from the second epoch on. Your transforms get the finished crop. Works
    with any sampler, `Subset`, several worker processes and `persistent_workers`; `DataLoader` fetches a batch with one
    call.

    Args:
        path: a .beton file, a folder of .beton parts, a folder of images for each class, a folder of webdataset
            shards; or a folder that holds both splits, of which `train` chooses one; or a `datasets.Dataset` (Hugging
            Face) with columns of images and class numbers.
        resolution: side of the crops in pixels, 8 to 2048; `set_resolution` changes it.
        train: RandomResizedCrop, or the center crop.
        scale: range of the crop's area as a share of the image's area (training).
        ratio: range of the crop's width over height (training).
        hflip: probability of a horizontal flip. 0 by default: flips are left to your transforms.
        crop_pct: side of the center crop over the resized short side, in (0, 1] (testing).
        interpolation: filter of the resize, always antialiased: "bilinear", "bicubic", or (training) "random", one of
            the two for each image, as in timm's training.
        crop: `TrainCrop`, `EvalCrop` or `ShiftCrop`; overrides the six before.
        transform: called with each crop, for example of torchvision.transforms.v2.
        target_transform: called with each label.
        output_type: what `transform` gets: "tensor", uint8 (3, r, r); "pil", an RGB `PIL.Image.Image`; "numpy", uint8
            (r, r, 3), as albumentations expects. All are RGB in [0, 255].
        views: crops of each image, or (number, side) or (number, side, scale) for each group of them; see `Loader`.
            Unless it is 1, a sample's first value is a list of them.
        seed: None draws crops from torch's global generator, as torchvision does. A number makes them a function of
            (seed, epoch, index), so that `set_epoch` must be called before each epoch.
        on_bad: "stop" raises `InputError` for an image that cannot be decoded; "replace" warns and gives the next one.
        min_zoom: an image of half the size serves a crop if at least this many of its pixels per output pixel remain
            along each side. None: 0.7 for training crops from RoC files, 0.8 for all others.

    Raises:
        InputError: a path or value that cannot be used; the message names it and the remedy.

    Example:
        >>> transform = v2.Compose([v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])
        >>> dataset = fixres.CropDataset("train.beton", 128, transform=transform)
        >>> loader = DataLoader(dataset, batch_size=256, shuffle=True, num_workers=8)
    """

    @checked
    def __init__(
        self,
        path: str | os.PathLike[str] | Any,
        resolution: int,
        *,
        train: bool = True,
        scale: tuple[float, float] = TrainCrop.scale,
        ratio: tuple[float, float] = TrainCrop.ratio,
        hflip: float = 0.0,
        crop_pct: float = EvalCrop.crop_pct,
        interpolation: TrainInterpolation = "bilinear",
        crop: Crop | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        output_type: Literal["tensor", "pil", "numpy"] = "tensor",
        views: ViewSettings = 1,
        seed: int | None = None,
        on_bad: Literal["stop", "replace"] = "stop",
        min_zoom: float | None = None,
    ) -> None:
        """Opens the data. The class explains the many parameters; all but two have defaults."""
        if seed is not None:
            check_seed(seed, bits=64)
        self.transform, self.target_transform = transform, target_transform
        self._crop = crop or chosen_crop(train, tuple(scale), tuple(ratio), hflip, crop_pct, interpolation)
        self._stored, self._min_zoom = stored_images(path, train), min_zoom
        groups = view_groups(views)
        self._views = Views(self._crop, groups, 0 if seed is None else seed)
        self._output_type, self._is_list, self._seed, self._on_bad = output_type, bool(groups), seed, on_bad
        # Epoch and resolution are in shared memory, because workers that live on between epochs have copies of this.
        self._shared = torch.tensor([0, check_resolution(resolution)]).share_memory_()
        self._reader = self._open()
        self.classes = list(self._reader.classes)
        """Class names in label order."""
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        """Labels by class name."""
        self.targets: list[int] = self._reader.labels.tolist()
        """The label of each image."""

    def _open(self) -> CropReader:
        return CropReader(self._stored, self._crop, self._min_zoom)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file, so that a copy for a worker process is small."""
        return self.__dict__ | {"_reader": None}

    def __len__(self) -> int:
        """The number of images."""
        return len(self.targets)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def resolution(self) -> int:
        """Side of the crops in pixels."""
        return int(self._shared[1])

    @property
    def imgs(self) -> list[tuple[str, int]]:
        """Name and label of each image, as `ImageFolder` lists them; a name is for people, and may be no path."""
        reader = self._opened()
        return [(reader.name(index), label) for index, label in enumerate(self.targets)]

    samples = imgs

    @checked
    def set_resolution(self, resolution: int) -> None:
        """Sets the side of the crops in pixels, also in running workers. Call it between epochs."""
        self._shared[1] = check_resolution(resolution)

    @checked
    def set_epoch(self, epoch: int) -> None:
        """Chooses the crops of an epoch, also in running workers; without a `seed` it changes nothing."""
        if not 0 <= epoch <= MAX_EPOCH:
            raise InputError(f"epoch={epoch} must be in [0, {MAX_EPOCH}]")
        self._shared[0] = epoch

    def __getitem__(self, index: int) -> Sample:
        """The crop (or the list of `views` crops) of an image, and its label; both transformed."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} images")
        return self.__getitems__([operator.index(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The samples of a batch with one call into the decoder; `DataLoader` uses it."""
        images, used = self._read(np.asarray(indices, np.int64) % len(self), self.resolution)
        return [
            (self._sample(crops), self._target(self.targets[index])) for crops, index in zip(images, used, strict=True)
        ]

    def _read(self, indices: np.ndarray, resolution: int) -> tuple[list[list[np.ndarray]], Sequence[int]]:
        """The crops of each image, uint8 (r, r, 3), and the positions of the images."""
        reader, epoch = self._opened(), int(self._shared[0])

        def crops_of(indices: np.ndarray) -> list[list[np.ndarray]]:
            places = self._views.places(resolution, len(indices))
            buffer = reader.read(indices, self._draw(indices, epoch, resolution), places)
            return [places.crops(buffer, slot) for slot in range(len(indices))]

        with options_as_keywords():
            try:
                return crops_of(indices), indices
            except BadSampleError:
                if self._on_bad == "stop":
                    raise

            def one(index: int) -> tuple[list[np.ndarray], int]:
                return crops_of(np.array([index]))[0], index

            bad: list[str] = []
            found = [retry_next(one, candidates(int(i), len(self), None), "replace", bad) for i in indices]
            for line in bad:
                warnings.warn(f"{line}; the next image takes its place", stacklevel=2)
        return [crops for crops, _ in found], [index for _, index in found]

    def _draw(self, indices: np.ndarray, epoch: int, resolution: int) -> Draw:
        views, keys = self._views, indices
        if self._seed is None:
            # Draws are keyed by the place in the batch, because a sampler may repeat an index.
            views, epoch, keys = views.reseeded(int(torch.randint(2**63 - 1, ()))), 0, np.arange(len(indices))
        return lambda sizes: views.boxes(epoch, keys, sizes, resolution)

    def _sample(self, crops: list[np.ndarray]) -> Any:
        made = [self._transformed(crop) for crop in crops]
        return made if self._is_list else made[0]

    def _transformed(self, image: np.ndarray) -> Any:
        crop: Tensor | Image.Image | np.ndarray = image
        if self._output_type == "pil":
            crop = Image.fromarray(image)
        elif self._output_type == "tensor":
            crop = torch.from_numpy(image).permute(2, 0, 1)
        return crop if self.transform is None else self.transform(crop)

    def _target(self, label: int) -> Any:
        return label if self.target_transform is None else self.target_transform(label)

    def _opened(self) -> CropReader:
        if self._reader is None:  # in a worker that was not forked
            reader = self._open()
            if list(reader.classes) != self.classes or reader.labels.tolist() != self.targets:
                raise InputError(f"{self._stored} was replaced since the data set was opened; open it again")
            self._reader = reader
        return self._reader

"""timm's `create_dataset` and `create_loader` for stored crops: timm's training script with one changed import.

timm makes the loader, its samplers, augmentation, mixing and random erasing. Here its first transform, the crop and the
resize, is replaced by the decoder of `fixres.CropDataset`.

Example:
    >>> from fixres.timm import create_dataset, create_loader
    >>> dataset = create_dataset("", root="imagenet", split="train", is_training=True)
    >>> loader = create_loader(dataset, 128, 256, is_training=True, auto_augment="rand-m6-mstd0.5-inc1", re_prob=0.1)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm.data
import torch
from PIL import Image
from timm.data.scheduled_sampler import ScheduledTransformDataset
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import CenterCrop, Compose

from fixres.api.calls import checked
from fixres.api.crop_dataset import CropDataset, Sample
from fixres.pipelines.loaders.views import Views
from fixres.pipelines.spec import Crop, EvalCrop, InputError, TrainCrop

_RESOLUTION = 224  # until `create_loader` says another
# Arguments of timm's create_dataset that change what a data set holds, with the values that change nothing.
_NEUTRAL = {"class_map": (None, ""), "num_samples": (None,), "repeats": (0,), "input_img_mode": (None, "RGB")}


class Crops(CropDataset):
    """A `CropDataset` that takes the resolution and the remaining transforms from the transform that timm sets."""

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """What is applied to the crop."""
        return self._after_crop

    @transform.setter
    def transform(self, transform: Callable[[Any], Any] | None) -> None:
        self._after_crop = transform
        if isinstance(transform, Compose):
            resolution, self._after_crop = _without_crop(transform)
            self.set_resolution(resolution)

    def use(self, crop: Crop) -> None:
        """Chooses the crop; before workers are started."""
        self._crop, self._views, self._reader = crop, Views(crop, (), 0), None

    def __getitem__(self, index: int) -> Sample:
        """The transformed crop and the label; without a transform an image that is decoded when its size is known."""
        if self._after_crop is None:
            return _Image(self, index), self.targets[index]
        return super().__getitem__(index)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:  # noqa: ARG002 (timm's)
        """The name of an image, as timm's data sets give it."""
        return self.filenames(basename)[index]

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:  # noqa: ARG002 (timm's)
        """The names of all images, as timm's data sets give them."""
        return [Path(name).name if basename else name for name, _ in self.imgs]


class _Image(NamedTuple):
    """An image of a batch whose resolution timm's scheduled sampler chooses."""

    dataset: Crops
    index: int

    def crop(self, resolution: int) -> Image.Image:
        images, _ = self.dataset._read(np.array([self.index]), resolution)
        return Image.fromarray(images[0][0])


class _CropThen:
    """A transform of timm whose crop is decoded at the transform's size."""

    def __init__(self, transform: Compose) -> None:
        self._resolution, self._rest = _without_crop(transform)

    def __call__(self, image: _Image) -> Any:
        return self._rest(image.crop(self._resolution))


def _without_crop(transform: Compose) -> tuple[int, Compose]:
    """The side of the crops in pixels, and the transforms after the crop."""
    steps = transform.transforms
    num = next(i for i, step in enumerate(steps) if isinstance(step, RandomResizedCropAndInterpolation | CenterCrop))
    height, width = np.broadcast_to(steps[num].size, 2).tolist()
    if height != width:
        raise InputError(f"input_size={height} x {width} must be square")
    return height, Compose(steps[num + 1 :])


@checked
def create_dataset(
    name: str = "",  # noqa: ARG001 (timm's signature)
    root: str | os.PathLike[str] | None = None,
    split: str = "validation",
    *,
    is_training: bool = False,  # noqa: ARG001 (timm's signature)
    **options: Any,
) -> Crops:
    """timm's `create_dataset`, for stored images of all kinds that `fixres.CropDataset` reads.

    Args:
        name: ignored: the kind of storage is recognized.
        root: see `CropDataset`; of a folder with both splits, `split` chooses one.
        split: "train" for the training images; any other name for the test images.
        is_training: ignored: `create_loader` chooses the crop.
        **options: those of timm that change what the data set holds (such as `class_map`) are refused, the others are
            ignored.

    Raises:
        InputError: no images at `root`, or an option that is refused.
    """
    if root is None:
        raise InputError("root is missing; give the folder or .beton file of the images")
    for option, neutral in _NEUTRAL.items():
        if options.get(option, neutral[0]) not in neutral:
            raise InputError(f"{option}={options[option]!r} is not supported; use timm.data.create_dataset for it")
    return Crops(root, _RESOLUTION, train=split.lower().startswith("train"), output_type="pil")


@checked
def create_loader(
    dataset: Crops,
    input_size: int | Sequence[int],
    batch_size: int,
    is_training: bool = False,
    **options: Any,
) -> Any:
    """timm's `create_loader`: batches of normalized images and labels on the device.

    Args:
        dataset: of `create_dataset` above.
        input_size: side in pixels, or (channels, height, width).
        batch_size: images per batch of this process.
        is_training: random crops in random order, or center crops.
        **options: of `timm.data.create_loader`. `crop_mode` must be "center" and `train_crop_mode` "rrc",
            `interpolation` bilinear, bicubic or, in training, random. The default device is the GPU if there is one.

    Returns:
        timm's loader, with `dataset`, `sampler` and `mixup_enabled`.

    Raises:
        InputError: a data set of another kind, a size that is not square, or an option that is not supported.
    """
    for option, neutral in (("crop_mode", "center"), ("train_crop_mode", "rrc"), ("tf_preprocessing", False)):
        if options.get(option) not in (None, neutral):
            raise InputError(
                f"{option}={options[option]!r} must be {neutral!r}; use timm.data.create_loader for others"
            )
    if options.get("crop_border_pixels") or options.get("num_aug_splits"):
        raise InputError(
            "crop_border_pixels and num_aug_splits are not supported; use timm.data.create_loader for them"
        )
    options.setdefault("device", torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    dataset.use(_crop(is_training, options))
    loader = timm.data.create_loader(dataset, input_size, batch_size, is_training, **options)
    if isinstance(loader.dataset, ScheduledTransformDataset):
        loader.dataset.transforms = tuple(map(_CropThen, loader.dataset.transforms))
    return loader


def _crop(is_training: bool, options: dict[str, Any]) -> Crop:
    interpolation = options.get("interpolation") or EvalCrop.interpolation
    if not is_training:
        return EvalCrop(options.get("crop_pct") or EvalCrop.crop_pct, interpolation=interpolation)
    if options.get("no_aug"):
        return EvalCrop(1.0, interpolation=interpolation)
    scale, ratio = options.get("scale") or TrainCrop.scale, options.get("ratio") or TrainCrop.ratio
    return TrainCrop(scale, ratio, hflip=0.0, interpolation=interpolation)

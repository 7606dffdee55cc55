"""`fixres.Loader`: batches of training or test crops from stored images, for any training loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from fixres.api.calls import checked, options_as_keywords
from fixres.api.crop_dataset import CropDataset
from fixres.api.sampler import EpochBatchSampler, EpochSampler
from fixres.api.splits import chosen_crop, engine_for, stored_images, workers_for
from fixres.api.views import ViewSettings, view_groups
from fixres.models.factory import Normalize
from fixres.models.precision import choose_device
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Counters,
    Crop,
    EvalCrop,
    InputError,
    LoaderConfig,
    Resident,
    TrainCrop,
    TrainInterpolation,
)

Numbers = Sequence | np.ndarray | Tensor
"""A list, an array or a tensor of numbers."""


class Loader:
    """Iterates over batches of crops; each iteration is a new epoch.

    Training (`train=True`): RandomResizedCrop and horizontal flip, shuffled, the last short batch is dropped. Testing
    (`train=False`): center crop, stored order, every image once.

    Order, crops and flips are pure functions of (seed, epoch, index): they do not depend on `num_workers`.

    Args:
        path: a .beton file, a folder of .beton parts, an image folder (a folder of images for each class), a folder of
            webdataset or parquet shards; or a folder that holds both splits (`train.beton` and `val.beton`, or `train/`
            and `val/`), of which `train` chooses one; or a `datasets.Dataset` (Hugging Face), or a `DatasetDict`.
        resolution: side of the square crops in pixels, 8 to 2048; `set_resolution` changes it.
        batch_size: images per batch of this process.
        train: training crops or test crops.
        engine: "auto" (`roc`, which writes an index beside images that were not converted; `roc-dali` for RoC files on
            GPUs), or a name in `fixres.pipelines.loaders.ENGINES`.
        device: where batches arrive: "cpu", "cuda", "cuda:1"; the current GPU if there is one, else the CPU, by
            default.
        indices: positions in the data set of the samples of an epoch, as `Subset` takes them; all by default.
        weights: a number for each of `indices` (or for each image): as many images are drawn in an epoch, with
            replacement and probabilities proportional to them, as by `WeightedRandomSampler`. The draws are a function
            of (seed, epoch); an image that is drawn again gets another crop.
        views: crops of each image. 2 gives two; `[(2, 224), (8, 96)]` gives two of 224 and eight of 96 pixels, and a
            third value is the `scale` of a group: `[(2, 224, (0.4, 1)), (8, 96, (0.05, 0.4))]`. None in place of a side
            is `resolution`. Engines `roc` and `torch`, with batches that they copy to the GPU. Crops of one image that
            come from the same level are decoded together.
        per_image: a function of your own, called with each crop as a uint8 array (r, r, 3) before normalization; it
            returns an array of the same type and shape, or the one that it was given. Engine `roc` calls it in its
            threads, and as Python runs one of them at a time, its time is not divided by `num_workers`: 1 ms limits
            the loader to 1000 crops/s. Engine `torch` calls it in its worker processes, to which it must be picklable.
        crop: `TrainCrop`, `EvalCrop` or `ShiftCrop`; overrides the five that follow.
        scale: range of the crop's area as a share of the image's area (training).
        ratio: range of the crop's width over height (training).
        hflip: probability of a horizontal flip (training).
        crop_pct: side of the center crop over the resized short side, in (0, 1] (testing).
        interpolation: filter of the resize, always antialiased: "bilinear", "bicubic", or (training) "random", one of
            the two for each image, as in timm's training.
        normalize: True gives float batches, False uint8 batches.
        mean: channel means in [0, 1], RGB, for `normalize`.
        std: channel standard deviations in [0, 1], RGB, for `normalize`.
        dtype: of normalized batches.
        with_indices: add each image's position in the data set to the batch.
        shuffle: reorder the images in each epoch; `train` by default.
        drop_last: leave out the last batch if it is short; `train` by default.
        seed: of order, crops and flips.
        num_workers: worker threads or processes; the number of CPU cores by default.
        rank: this process among `world_size`; from `torch.distributed` by default.
        world_size: number of processes that share the data; likewise.
        on_bad: "stop" raises `InputError` for an image that cannot be decoded; "replace" counts it in
            `counters.num_bad_samples`, adds a line to `counters.bad_samples` and delivers the next image.
        min_zoom: an image of half the size serves a crop if at least this many of its pixels per output pixel remain
            along each side. None: 0.7 for training crops from RoC files, 0.8 for all others.
        resident: engine `roc-gpu` with RoC files only: "always" keeps the file in the GPU's memory, "host" in pinned
            memory that kernels read over PCIe, "never" copies the bytes of each batch, "auto" decides by the free
            memory.

    Yields:
        `(images, labels)`, or `(images, labels, indices)` with `with_indices=True`. `images` is `dtype` (N, 3, r, r)
        in channels_last memory format, normalized; uint8 (N, 3, r, r) in channels_last, RGB in [0, 255], with
        `normalize=False`. `labels` and `indices` are int64 (N,). All are on `device`. With `views` other than 1,
        `images` is a list of such tensors, one for each view.

    Raises:
        InputError: a path, engine, device or value that cannot be used; the message names it and the remedy.

    Example:
        >>> loader = fixres.Loader("train.beton", resolution=128, batch_size=256)
        >>> for epoch in range(16):
        ...     loader.set_resolution(128 if epoch < 12 else 160)
        ...     for images, labels in loader:
        ...         loss = criterion(model(images), labels)
    """

    @checked
    def __init__(
        self,
        path: str | os.PathLike[str] | Any,
        resolution: int,
        batch_size: int,
        *,
        train: bool = True,
        engine: str = "auto",
        device: str | torch.device | None = None,
        indices: Numbers | None = None,
        weights: Numbers | None = None,
        views: ViewSettings = 1,
        per_image: Callable[[np.ndarray], np.ndarray] | None = None,
        crop: Crop | None = None,
        scale: tuple[float, float] = TrainCrop.scale,
        ratio: tuple[float, float] = TrainCrop.ratio,
        hflip: float = TrainCrop.hflip,
        crop_pct: float = EvalCrop.crop_pct,
        interpolation: TrainInterpolation = "bilinear",
        normalize: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        with_indices: bool = False,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        on_bad: Literal["stop", "replace"] = "stop",
        min_zoom: float | None = None,
        resident: Resident = "auto",
    ) -> None:
        """Opens the data. The class explains the many parameters; all but three have defaults."""
        if not dtype.is_floating_point:
            raise InputError(f"dtype={dtype} must be a float dtype; normalize=False gives uint8")
        normalization = Normalize(mean, std)
        stored = stored_images(path, train)
        ranges = tuple(scale), tuple(ratio)
        where = str(choose_device("auto" if device is None else str(device)))
        rank, world_size = _process(rank, world_size)
        config = LoaderConfig(
            path=stored if isinstance(stored, Path) else Path(type(path).__name__),
            source=None if isinstance(stored, Path) else stored,
            crop=crop or chosen_crop(train, *ranges, hflip if train else 0.0, crop_pct, interpolation),
            resolution=resolution,
            batch_size=batch_size,
            shuffle=(train or weights is not None) if shuffle is None else shuffle,
            drop_last=train if drop_last is None else drop_last,
            indices=_positions(indices),
            weights=None if weights is None else _array("weights", weights, np.float64),
            views=view_groups(views),
            per_image=per_image,
            seed=seed,
            num_workers=workers_for(num_workers),
            rank=rank,
            world_size=world_size,
            device=where,
            on_bad=on_bad,
            min_zoom=min_zoom,
            resident=resident,
        )
        on_host = bool(config.views) or per_image is not None
        self._config, self._dataset = config, None
        self._loader = open_loader(engine_for(stored, engine, "cpu" if on_host else where), config)
        self._normalize = normalization.to(where) if normalize else None
        self._dtype, self._with_indices = dtype, with_indices
        self._next_epoch, self._epoch_done = 0, True

    def __len__(self) -> int:
        """Batches of an epoch in this process."""
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """The next epoch, or the rest of the one that `load_state_dict` named; it begins with the first batch.

        A second iteration ends the first one: its next batch raises RuntimeError.
        """
        # As DataLoader's samplers do: Lightning calls set_epoch between iter() and the first batch.
        self._loader.set_epoch(self._next_epoch)
        self._next_epoch, self._epoch_done = self._next_epoch + 1, False
        with options_as_keywords():
            for batch in self._loader:
                images = self._finished(batch.images)
                yield (images, batch.labels, batch.indices) if self._with_indices else (images, batch.labels)
        self._epoch_done = True

    def _finished(self, images: Tensor | tuple[Tensor, ...]) -> Tensor | list[Tensor]:
        """Batches NHWC as the user gets them; groups (k, N, r, r, 3) become k views."""
        if isinstance(images, tuple):
            flat = [(self._finished(group.flatten(0, 1)), group.shape[:2]) for group in images]
            return [view for group, shape in flat for view in group.unflatten(0, shape).unbind(0)]
        return images.permute(0, 3, 1, 2) if self._normalize is None else self._normalize(images).to(self._dtype)

    @checked
    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration (0 or more); the iterations after it count on from there."""
        self._loader.set_epoch(epoch)
        self._next_epoch, self._epoch_done = epoch, True

    @checked
    def set_resolution(self, resolution: int) -> None:
        """Sets the side of the crops in pixels, from the next iteration on; workers keep running.

        Raises:
            InputError: `views` name the sides of all crops.
        """
        if self._config.views and all(group.resolution is not None for group in self._config.views):
            raise InputError("views name the sides of all crops, so set_resolution changes none; give None as a side")
        self._loader.set_resolution(resolution)

    @property
    def resolution(self) -> int:
        """Side of the crops in pixels."""
        return self._loader.resolution

    @property
    def batch_size(self) -> int:
        """Images per batch of this process."""
        return self._loader.batch_size

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self._loader.classes

    @property
    def num_samples(self) -> int:
        """Images of an epoch, over all processes: those of the data set, or as many as `indices`."""
        return self._loader.num_samples

    @property
    def counters(self) -> Counters:
        """Images, bytes, decoded pixels, seconds of waiting and bad samples since the loader was opened."""
        return self._loader.counters

    @property
    def dataset(self) -> Dataset:
        """The images that `indices` name, as a `CropDataset` (or its `Subset`): what scripts ask a `DataLoader` for.

        `loader.dataset[i]` is a crop of the epoch that comes next. It is opened when it is asked for.
        """
        if self._dataset is None:
            config, views = self._config, [(group.num, group.resolution, group.scale) for group in self._config.views]
            options = {"crop": config.crop, "seed": config.seed, "min_zoom": config.min_zoom, "views": views or 1}
            stored = config.path if config.source is None else config.source
            self._dataset = CropDataset(stored, self.resolution, on_bad=config.on_bad, **options)
        self._dataset.set_epoch(self._next_epoch)
        return self._dataset if self._config.indices is None else Subset(self._dataset, self._config.indices.tolist())

    @property
    def sampler(self) -> EpochSampler:
        """The order of the images in this process; `loader.sampler.set_epoch(3)` is `loader.set_epoch(3)`."""
        return EpochSampler(self)

    @property
    def batch_sampler(self) -> EpochBatchSampler:
        """The same, batch by batch."""
        return EpochBatchSampler(self)

    @property
    def drop_last(self) -> bool:
        """Whether a last short batch is left out."""
        return self._config.drop_last

    @property
    def num_workers(self) -> int:
        """Worker threads or processes."""
        return self._config.num_workers

    def index_batches(self, epoch: int | None = None) -> Iterator[np.ndarray]:
        """int64 (N,) for each batch of an epoch in this process: positions in the data set. No image is read.

        Args:
            epoch: the next one by default.
        """
        return self._loader.index_batches(self._next_epoch if epoch is None else epoch)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position in it, so that an interrupted epoch can be continued; the next epoch after a whole one."""
        state = self._loader.state_dict()
        return state | {"epoch": self._next_epoch, "position": 0} if self._epoch_done else state

    @checked
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration continue where `state_dict` was taken.

        Raises:
            InputError: the state is of other data, another seed or another order.
        """
        self._loader.load_state_dict(state)
        self._next_epoch, self._epoch_done = state["epoch"], False

    def close(self) -> None:
        """Ends worker threads and processes and frees buffers. May be called twice."""
        self._loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _positions(indices: Numbers | None) -> np.ndarray | None:
    if indices is None:
        return None
    given = _array("indices", indices)
    if given.size and given.dtype.kind not in "iu":
        raise InputError(f"indices={given!r:.60} must be whole numbers; np.flatnonzero(mask) gives those of a mask")
    return given.astype(np.int64)


def _array(name: str, numbers: Numbers, dtype: type | None = None) -> np.ndarray:
    try:
        return np.array(numbers, dtype)
    except (ValueError, TypeError, RuntimeError) as error:  # not numbers, rows of other lengths, a tensor on a GPU
        shown = " ".join(repr(numbers).split())[:60]
        raise InputError(f"{name}={shown} must be a list of numbers, an array or a tensor on the CPU") from error


def _process(rank: int | None, world_size: int | None) -> tuple[int, int]:
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if together else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if together else 1
    return rank, world_size

"""Shared types of the data path and the training code: errors, crops, configurations, batches, protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from fixres.pipelines.crop_types import Box as Box
from fixres.pipelines.crop_types import Crop, ViewGroup, check_fraction
from fixres.pipelines.crop_types import EvalCrop as EvalCrop
from fixres.pipelines.crop_types import Interpolation as Interpolation
from fixres.pipelines.crop_types import ShiftCrop as ShiftCrop
from fixres.pipelines.crop_types import TrainCrop as TrainCrop
from fixres.pipelines.crop_types import TrainInterpolation as TrainInterpolation
from fixres.pipelines.errors import BadSampleError as BadSampleError
from fixres.pipelines.errors import InputError as InputError
from fixres.pipelines.errors import one_line as one_line
from fixres.pipelines.value_types import check_fields as check_fields
from fixres.pipelines.value_types import check_types

if TYPE_CHECKING:
    import torch  # takes 4 s, and conversion does not need it

# RGB channel statistics of ImageNet in [0, 1], as torchvision and timm use them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# 0.7 decodes 13 to 18 % fewer pixels than 0.8 for 0.6 to 0.8 dB, and networks train as well with it. In testing, 0.7
# would show center crops of 224 px from 500 px photographs as enlarged half-size images (benchmarks/LOG.md).
MIN_TRAIN_ZOOM, MIN_ZOOM = 0.7, 0.8
MIN_RESOLUTION = 8
MAX_RESOLUTION = 2048
MAX_WORKERS = 1024


def check_resolution(resolution: int) -> int:
    """Returns `resolution` in pixels if loaders support it, else raises InputError."""
    check_types({"resolution": resolution}, {"resolution": int})
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise InputError(f"resolution={resolution} is not supported; use {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels")
    return int(resolution)


@dataclass(frozen=True)
class DALIOptions:
    """How engine `roc-dali` uses DALI. The last four apply to GPUs only; their defaults are DALI's."""

    batches_ahead: int = 3
    """Batches that are cut out and wait for DALI."""
    prefetch: int = 2
    """Batches inside DALI: one is delivered while the next is decoded. Each takes its images' memory on the device."""
    hw_decoder_load: float = 0.65
    """Fraction of the images for the GPU's JPEG engine (A100, H100, H200), in [0, 1]; kernels decode the others."""
    device_memory_padding: int = 16 << 20
    """Bytes that each thread's decoder allocates on the GPU at the start, so that it does not grow later."""
    host_memory_padding: int = 8 << 20
    """The same in pinned host memory, twice per thread."""
    preallocate_side: int = 0
    """Height and width in pixels for which the JPEG engine allocates memory at the start; 0 lets it grow."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("batches_ahead", "prefetch"):
            if getattr(self, name) < 1:
                raise InputError(f"dali.{name}={getattr(self, name)} must be at least 1")
        check_fraction("dali.hw_decoder_load", self.hw_decoder_load)
        for name in ("device_memory_padding", "host_memory_padding", "preallocate_side"):
            if getattr(self, name) < 0:
                raise InputError(f"dali.{name}={getattr(self, name)} must not be negative")


Engine = Literal["auto", "roc", "roc-gpu", "roc-dali", "torch", "ffcv", "dali", "dali-slice"]
"""Names of engines, `fixres.pipelines.loaders.ENGINES`, and "auto"."""
Resident = Literal["auto", "always", "host", "never"]
"""Where engine roc-gpu keeps a copy of a file."""
GENERATED = ("scenes", "imagenette")
"""Data that the project draws or downloads."""


@dataclass(frozen=True)
class DataConfig:
    """Which images are read, and by which engine."""

    path: str | None = field(default=None, metadata={"option": "data"})
    """A folder of images (train/ and val/, or class folders to split), a folder with train.beton and val.beton, one of
    these two files, "scenes" (synthetic), or "imagenette"."""
    engine: Engine = field(default="auto", metadata={"option": "engine"})
    """What reads, decodes and crops the images; "auto" chooses for the hardware."""
    work_dir: Path = field(default=Path("data"), metadata={"option": "work_dir"})
    """Folder for generated, downloaded, split and converted data, which later runs use again."""
    seed: int = 0
    """Seeds the synthetic scenes and the train/val split. Not the run's seed: runs with other seeds share the data."""
    num_workers: int = field(default=2, metadata={"option": "num_workers"})
    """Worker processes or threads of each loader."""
    max_side: int = field(default=500, metadata={"option": "max_side"})
    """Longest side of a stored image in pixels, in conversions."""
    quality: int = field(default=90, metadata={"option": "quality"})
    """JPEG quality of re-encoded images, in conversions."""
    on_bad: Literal["stop", "replace"] = "stop"
    """A bad sample stops the run, or is counted and replaced by the next good one."""
    min_zoom: float | None = None
    """Which level of a RoC record is decoded, see LoaderConfig."""
    resident: Resident = field(default="auto", metadata={"option": "resident"})
    """Engine roc-gpu: whether the file is kept in the GPU's memory or in pinned memory, see LoaderConfig."""
    dali: DALIOptions = DALIOptions()
    """Settings of engine roc-dali."""

    def __post_init__(self) -> None:
        check_fields(self)  # before the data is prepared
        _check_reading(self)

    @property
    def stored(self) -> dict[str, Any] | None:
        """What a checkpoint keeps of it, so that the same images are found again from any folder."""
        if self.path is None:
            return None
        path = self.path if self.path in GENERATED else str(Path(self.path).absolute())
        return {"path": path, "work_dir": str(self.work_dir.absolute()), "seed": self.seed}


@dataclass(frozen=True)
class LoaderConfig:
    """What a loader delivers. It is the same for all engines.

    Training loaders set `shuffle` and `drop_last`. Evaluation loaders set neither and see each index once over all
    ranks.
    """

    path: Path
    """An ImageFolder, a .beton file, or a folder of webdataset shards."""
    crop: Crop
    """How the crop of each image is chosen."""
    resolution: int
    """Side of the square output in pixels; `set_resolution` changes it."""
    batch_size: int
    """Images per batch on this rank."""
    shuffle: bool = False
    """Shuffle the samples in each epoch."""
    drop_last: bool = False
    """Drop the last batch if it is shorter."""
    indices: np.ndarray | None = field(default=None, compare=False)
    """int64 (n,): the samples of an epoch, as positions in the data set, perhaps repeated; None: each sample once."""
    weights: np.ndarray | None = field(default=None, compare=False)
    """float64, one for each of `indices` or, without them, for each sample: as many samples are drawn with replacement,
    with probabilities proportional to the weights."""
    aug_repeats: int = 1
    """Repeated augmentation: a batch over all ranks has each of its images so many times, in other crops."""
    views: Sequence[ViewGroup] = ()
    """Several crops of each image, by size (engines roc and torch only); empty: one crop."""
    per_image: Callable[[np.ndarray], np.ndarray] | None = None
    """Called with each crop, uint8 (r, r, 3), by the worker that made it; returns an array of the same type and shape
    (engines roc and torch only). Threads of engine roc call it under Python's lock, one at a time."""
    seed: int = 0
    """Seeds order, crops and flips, together with epoch and index."""
    num_workers: int = 2
    """Worker processes or threads on this rank; 0 decodes in the calling thread if the engine supports it."""
    rank: int = 0
    """Number of this process, in [0, world_size)."""
    world_size: int = 1
    """Number of processes that share the data."""
    device: str = "cpu"
    """Device of the batches: "cpu" or "cuda[:n]"."""
    on_bad: Literal["stop", "replace"] = "stop"
    """A bad sample stops the run, or is counted and replaced by the next good one."""
    min_zoom: float | None = None
    """A crop is decoded from a coarser level of a RoC record, or by smaller transforms from an indexed file, if its
    sides there are at least this many times those of the output. Higher is finer and slower; infinity decodes full
    levels only. None: 0.7 for training crops from RoC records, 0.8 for all others."""
    resident: Resident = "auto"
    """Engine roc-gpu with RoC files only: "always" uploads the file to the GPU's memory when the loader is opened,
    "host" copies it to pinned memory, where kernels read it over PCIe, "never" copies the bytes of each batch, "auto"
    uploads a file that takes less than half of the free memory. Loaders of one process share the copy."""
    dali: DALIOptions = DALIOptions()
    """Engine roc-dali only."""
    source: Any = field(default=None, compare=False)
    """A `Source` in place of the images at `path`, which then only names them in messages: engine torch, and engine roc
    if the source tells where its images lie (`places`)."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_resolution(self.resolution)
        check_seed(self.seed, bits=64)  # views are seeded by hashes
        _check_reading(self)
        _check_views(self)
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size} must be at least 1")
        if self.aug_repeats < 1:
            raise InputError(f"aug_repeats={self.aug_repeats} must be at least 1, which repeats no image")
        if self.weights is not None and not self.shuffle:
            raise InputError("weights draw samples at random, which shuffle=False forbids; leave one of them out")
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank={self.rank} must be in [0, world_size={self.world_size})")

    @property
    def zoom(self) -> float:
        """`min_zoom`, or the default for `crop`."""
        return zoom_of(self.crop, self.min_zoom)


def check_seed(seed: int, bits: int = 63) -> None:
    """Raises InputError for a seed that is negative or has more bits."""
    if not 0 <= seed < 2**bits:
        raise InputError(f"seed={seed} must be in [0, 2**{bits})")


def _check_views(config: LoaderConfig) -> None:
    for group in config.views:
        if group.resolution is not None:
            check_resolution(group.resolution)
        if group.scale is not None and not isinstance(config.crop, TrainCrop):
            raise InputError(f"views with scale={group.scale} need random crops; leave scale out, or set train=True")


def _check_reading(config: DataConfig | LoaderConfig) -> None:
    if config.min_zoom is not None and not config.min_zoom > 0:
        raise InputError(
            f"min_zoom={config.min_zoom} must be above 0; {MIN_TRAIN_ZOOM} is the default for training crops"
        )
    if not 0 <= config.num_workers <= MAX_WORKERS:
        raise InputError(f"num_workers={config.num_workers} must be from 0 to {MAX_WORKERS}")


def zoom_of(crop: Crop, min_zoom: float | None) -> float:
    """The `min_zoom` of a loader with this crop: the value that is given, or the crop's default."""
    if min_zoom is not None:
        return min_zoom
    return MIN_TRAIN_ZOOM if isinstance(crop, TrainCrop) else MIN_ZOOM


class Batch(NamedTuple):
    """One step's data.

    Attributes:
        images: uint8 NHWC (B, r, r, 3), RGB in [0, 255], contiguous, on the loader's device, not normalized. With
            `LoaderConfig.views`, a tuple of one uint8 (num, B, r, r, 3) for each group.
        labels: int64 (B,), class numbers.
        indices: int64 (B,), positions in the data set; -1 if the engine does not provide them.
    """

    images: torch.Tensor | tuple[torch.Tensor, ...]
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass
class Counters:
    """What a loader has done since it was opened. None if the engine does not count it."""

    num_images: int = 0
    bytes_read: int | None = 0
    """Encoded bytes of the samples read."""
    pixels_decoded: int | None = 0
    """Pixels decoded from JPEGs."""
    wait_seconds: float = 0.0
    """Time that the consumer waited for batches."""
    num_bad_samples: int = 0
    bad_samples: list[str] = field(default_factory=list)
    """A line for each bad sample that was replaced."""


@runtime_checkable
class Source(Protocol):
    """Stored images with random access, as encoded bytes."""

    classes: tuple[str, ...]
    """Class names in label order: sorted, as in torchvision's ImageFolder."""
    labels: np.ndarray
    """int64 (N,), in [0, len(classes))."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Encoded image file (JPEG, PNG, ...) of sample `index`."""
        ...

    def name(self, index: int) -> str:
        """Where sample `index` is, for messages: the file, and the member or number in it."""
        ...


@runtime_checkable
class Loader(Protocol):
    """An engine's stream of batches. One iteration gives one epoch; `set_epoch` chooses which."""

    classes: tuple[str, ...]
    num_samples: int
    """Samples of a whole epoch, over all ranks: those of the data set, or as many as `LoaderConfig.indices`."""
    batch_size: int
    """Images per batch on this rank; the last batch of an epoch may be shorter."""
    resolution: int
    counters: Counters
    shares_boxes: bool
    """True if order, boxes and flips are those of `sampling.crops`; False if the engine draws its own."""

    def __len__(self) -> int:
        """Number of batches of this rank in a whole epoch."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current epoch, from its start or the position of `load_state_dict`."""
        ...

    def index_batches(self, epoch: int | None = None) -> Iterator[np.ndarray]:
        """int64 (B,) each: the indices of an epoch's batches (the current one by default), without reading an image."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        ...

    def set_resolution(self, resolution: int) -> None:
        """Sets the output side in pixels from the next iteration on, without rebuilding the engine."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the number of samples delivered in it over all ranks."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration continue at that state."""
        ...

    def close(self) -> None:
        """Ends workers and frees buffers. Idempotent."""
        ...


class OpenLoader(Protocol):
    """Opens a loader of one split; passed to training code, with engine and data set already chosen."""

    def __call__(self, split: Literal["train", "val"], **config: Any) -> Loader: ...

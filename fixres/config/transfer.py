"""Settings of detection and segmentation with a trained backbone. `fixres/recipes/detect` and `segment` are instances.

Their optimizer, schedule, device, run folder and fault tolerance have the settings of `fixres.config.recipe`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fixres.config.checks import at_most, check_batch_size, check_device, positive
from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.config.network_arguments import check_arguments
from fixres.config.recipe import OptimConfig
from fixres.pipelines.spec import MAX_RESOLUTION, MIN_RESOLUTION, InputError, check_fields, check_seed

_MAX_EPOCHS, _MAX_SIDES, _MAX_WORKERS = 100_000, 64, 1024
_MAX_SIDE = 8192  # of the longer side in detection


@dataclass(frozen=True)
class BackboneConfig:
    """A trained classifier that becomes the backbone."""

    weights: str | None = field(default=None, metadata={"option": "backbone"})
    """A file of weights (ours, timm's, torchvision's, FixRes', safetensors), or the timm name of cached weights."""
    arch: str | None = None
    """timm's name of the network, for files that do not name it."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, for files without them."""
    init: Literal["trained", "random"] = "trained"
    """"random" takes only the network from the weights, not their values, for comparison."""
    batchnorm: Literal["frozen", "trainable"] = "frozen"
    """Frozen BatchNorm keeps scale, shift and statistics of the weights; batches are small in detection."""
    num_frozen_stages: int = 0
    """Stages of the backbone that are not trained, counted from the image."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_arguments("backbone.model_kwargs", self.model_kwargs)
        if not 0 <= self.num_frozen_stages <= _MAX_SIDES:
            raise InputError(f"backbone.num_frozen_stages={self.num_frozen_stages} must be 0 or above")


@dataclass(frozen=True)
class AnnotatedData:
    """Images with boxes or masks."""

    path: str | None = field(default=None, metadata={"option": "data"})
    """A folder in one of the layouts of docs/transfer.md, or "scenes" (synthetic)."""
    classes: list[str] = field(default_factory=list)
    """Class names in label order. For boxes: those of the training annotations, sorted, if empty; for masks: a file
    classes.txt in the folder, or the layout's own."""
    on_bad: Literal["stop", "skip"] = "stop"
    """A bad box stops the run, or is left out and counted."""
    work_dir: Path = field(default=Path("data"), metadata={"option": "work_dir"})
    """Folder for synthetic scenes, which later runs use again."""
    seed: int = 0
    """Seeds the synthetic scenes. Not the run's seed: runs with other seeds share the data."""
    num_train: int = 400
    """Synthetic scenes for training."""
    num_val: int = 200
    """Synthetic scenes for testing."""
    num_workers: int = field(default=2, metadata={"option": "num_workers"})
    """Worker processes that read images; 0 reads in the training process."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.num_workers <= _MAX_WORKERS:
            raise InputError(f"data.num_workers={self.num_workers} must be from 0 to {_MAX_WORKERS}")
        if len(set(self.classes)) < len(self.classes):
            raise InputError(f"data.classes={','.join(self.classes)} has a name twice")
        if not all(self.classes):
            raise InputError(f"data.classes={','.join(self.classes)} has an empty name; is there a comma too many?")


def _optim() -> OptimConfig:
    return OptimConfig(lr=0.32, batch_size=16, weight_decay=1e-4, warmup_epochs=1.0, label_smoothing=0.0)


@dataclass(frozen=True)
class TransferRecipe:
    """What detection and segmentation share."""

    name: str = "transfer"
    """The run folder is runs/NAME."""
    seed: int = 0
    """Seeds new layers, order, sizes, crops and flips."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast type of forward and loss; "auto" takes bf16 where the hardware multiplies it fast."""
    run_dir: Path | None = field(default=None, metadata={"option": "output"})
    """Run folder; runs/NAME if null. An older run there is moved aside, not overwritten."""
    resume: Literal["no", "auto"] = "no"
    """"auto" resumes the run in the run folder from its newest intact training checkpoint, if there is one."""
    fault_tolerance: FaultToleranceConfig = field(default_factory=FaultToleranceConfig)
    """Training checkpoints, and when a run is stopped."""
    epochs: int = 24
    """Passes over the training images."""
    eval_every: int = 0
    """Epochs between evaluations; 0 evaluates only at the end."""
    hflip: float = 0.5
    """Probability of a horizontal flip in training."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The trained classifier."""
    data: AnnotatedData = field(default_factory=AnnotatedData)
    """Images and annotations."""
    optim: OptimConfig = field(default_factory=_optim)
    """The optimizer."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_device(self.device)
        positive("epochs", self.epochs)
        at_most("epochs", self.epochs, _MAX_EPOCHS, "epochs")
        check_batch_size("optim.batch_size", self.optim.batch_size)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", self.name):
            raise InputError(
                f"name={self.name!r} must be up to 100 letters, digits, '.', '_' or '-': it names a folder"
            )
        check_seed(self.seed)
        if self.eval_every < 0:
            raise InputError(f"eval_every={self.eval_every} must be a number of epochs, or 0")
        if not 0 <= self.hflip <= 1:
            raise InputError(f"hflip={self.hflip} must be in [0, 1]")
        for name in ("ema", "per_process"):
            if getattr(self.optim, name) is not None:
                raise InputError(f"optim.{name} is for `fixres train`; omit it")

    def check_complete(self) -> None:
        """Raises InputError if backbone or data are not named, or if the warm-up is too long."""
        if not self.backbone.weights:
            raise InputError("no backbone is named; give --backbone CHECKPOINT, or timm's name of cached weights")
        if self.data.path is None:
            raise InputError("no data is named; give --data FOLDER, or --data scenes")
        if self.data.path != "scenes" and not Path(self.data.path).is_dir():
            raise InputError(f"--data {self.data.path} is not a folder; docs/transfer.md lists the layouts")
        if self.optim.warmup_epochs > self.epochs:
            raise InputError(
                f"a warm-up of {self.optim.warmup_epochs:g} epochs is longer than the training of {self.epochs}; use "
                f"--optim.warmup-epochs {self.epochs / 8:g}"
            )

    @property
    def task(self) -> str:
        """The command: "detect" or "segment"."""
        return type(self).__name__.removesuffix("Recipe").lower()

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run_dir or Path("runs") / self.name


@dataclass(frozen=True)
class DetectRecipe(TransferRecipe):
    """Faster R-CNN with a feature pyramid (arXiv 1506.01497, 1612.03144); the use in arXiv 1812.01187, section 6.1."""

    name: str = "detect"
    """The run folder is runs/NAME."""
    min_sizes: list[int] = field(default_factory=lambda: [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800])
    """Pixels of the image's short side; in training one is drawn for each image, in testing it is the last."""
    max_size: int = 1333
    """Pixels of the long side at most."""
    fpn_channels: int = 256
    """Channels of the feature pyramid."""
    head_features: int = 1024
    """Width of the layers that classify boxes."""
    box_batch_size_per_image: int = 512
    """Boxes of each image on which the classifier of boxes is trained."""
    anchor_sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    """Sides of the anchors in pixels, one for each level of the pyramid, its coarsest with pooling included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optim.label_smoothing:
            raise InputError("optim.label_smoothing: torchvision's detector has none; omit it, or give 0")
        for name in ("min_sizes", "anchor_sizes"):
            values = getattr(self, name)
            if not values or len(values) > _MAX_SIDES:
                raise InputError(f"{name} needs 1 to {_MAX_SIDES} values in pixels")
            for value in values:
                positive(name, value)
                at_most(name, value, _MAX_SIDE, "pixels")
        for name in ("max_size", "fpn_channels", "head_features", "box_batch_size_per_image"):
            positive(name, getattr(self, name))
            at_most(name, getattr(self, name), _MAX_SIDE, "")
        if max(self.min_sizes) > self.max_size:
            raise InputError(f"min_sizes: {max(self.min_sizes)} px is above max_size={self.max_size}; raise max_size")


@dataclass(frozen=True)
class SegmentRecipe(TransferRecipe):
    """A fully convolutional decoder on dilated stages; the use in arXiv 1812.01187, section 6.2."""

    name: str = "segment"
    """The run folder is runs/NAME."""
    decoder: Literal["fcn", "deeplabv3"] = "fcn"
    """torchvision's FCN head, or DeepLabV3's with atrous pooling."""
    output_stride: int = 8
    """Pixels of the image per cell of the last stage: 8 dilates the last two stages, 16 the last, 32 none."""
    aux_weight: float = 0.4
    """Weight of the loss of an FCN head on the stage before the last; 0 leaves this head out."""
    base_size: int = 520
    """Pixels of the image's short side in testing, and before random scaling in training."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale in training."""
    crop_size: int = 480
    """Side of the random crop in training, in pixels; smaller images are padded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.on_bad != "stop":
            raise InputError(f"data.on_bad={self.data.on_bad} leaves out bad boxes; masks have none")
        for name in ("base_size", "crop_size"):
            if not MIN_RESOLUTION <= getattr(self, name) <= MAX_RESOLUTION:
                raise InputError(
                    f"{name}={getattr(self, name)} must be from {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels"
                )
        if self.output_stride not in (8, 16, 32):
            raise InputError(f"output_stride={self.output_stride} must be 8, 16 or 32")
        if not 0 < self.scale[0] <= self.scale[1] <= 16:
            raise InputError(f"scale={self.scale} must satisfy 0 < low <= high <= 16")
        if not 0 <= self.aux_weight < float("inf"):
            raise InputError(f"aux_weight={self.aux_weight} must be 0 (no such head) or above")

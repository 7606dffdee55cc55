"""A run as frozen dataclasses. `fixres/recipes/*.yaml` are named instances, `fixres.config.parsing` reads them.

`__post_init__` checks the values, so that a wrong one ends in one line before any work starts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fixres.config.augment import AugmentConfig, DistillConfig, RegularizationConfig
from fixres.config.checks import MAX_POINTS, at_most, check_batch_size, check_device, check_resolutions, positive
from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.config.network_arguments import check_arguments
from fixres.config.optim import OptimConfig, Optimizer
from fixres.config.optim import StepDecay as StepDecay
from fixres.pipelines.spec import (
    DataConfig,
    EvalCrop,
    InputError,
    TrainCrop,
    check_fields,
    check_resolution,
    check_seed,
)

_MAX_EPOCHS, _MAX_VARIANTS, _MAX_PROFILE = 100_000, 64, 1000
_RESERVED = ("states", "tensorboard")  # other folders in a run folder


@dataclass(frozen=True)
class ModelConfig:
    """A timm network."""

    name: str = field(default="resnet50", metadata={"option": "model"})
    """timm's model name."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm.create_model that shape the network, such as channels or drop_path_rate; docs/model.md lists
    those that are allowed. zero_init_last: whether the last BatchNorm of each residual block starts at 0; aa_layer:
    "blurpool" for blur pooling."""
    sync_bn: bool = False
    """Computes BatchNorm's training statistics over the images of all processes, not of each process alone."""
    init: Literal["xavier"] | None = None
    """"xavier" initializes convolutions and linear layers as in arXiv 1812.01187, section 2.1; timm's way if null."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_arguments("model.kwargs", self.kwargs)


@dataclass(frozen=True)
class ResolutionConfig:
    """Training resolution over epochs: a step function or linear ramps through given points."""

    points: list[tuple[int, int]] = field(default_factory=lambda: [(0, 224)])
    """(epoch, resolution in pixels), epochs rising from 0. The last resolution is kept to the end."""
    ramp: Literal["step", "linear"] = "step"
    """"step" keeps a resolution until the next point, "linear" interpolates to it."""
    multiple: int = 32
    """Ramps are rounded down to multiples of this; use the network's stride."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_most("resolution.points", len(self.points), MAX_POINTS, "points")
        epochs = [epoch for epoch, _ in self.points]
        if not self.points or epochs[0] != 0 or epochs != sorted(set(epochs)):
            raise InputError(
                f"resolution.points={self.points}: epochs must rise and start at 0, as [[0, 128], [10, 160]]"
            )
        positive("resolution.multiple", self.multiple)
        for epoch, resolution in self.points:
            check_resolution(resolution)
            if resolution % self.multiple:
                raise InputError(
                    f"resolution.points: {resolution} px at epoch {epoch} is not a multiple of resolution.multiple="
                    f"{self.multiple}; use {resolution // self.multiple * self.multiple or self.multiple}"
                )


@dataclass(frozen=True)
class FinetuneConfig:
    """FixRes fine-tuning at the test resolution (arXiv 1906.06423, section 4; 2003.08237). See docs/fixres.md."""

    epochs: int = 2
    """Passes over the training images; 0 with `adapt` alone."""
    lr: float = 0.01
    """Peak learning rate for a batch of 256; scaled linearly with the batch size."""
    schedule: Literal["cosine", "step"] = "cosine"
    """Half a cosine to 0, or "step": `lr` divided by 10 after every `step_epochs`."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from 0, with schedule "cosine"."""
    opt: Optimizer | None = None
    """timm's name of the optimizer; as in training if null."""
    weight_decay: float | None = None
    """Penalty of weight matrices and kernels; as in training if null."""
    step_epochs: int = 30
    """Epochs between the steps of schedule "step"."""
    layers: Literal["classifier", "classifier_bn", "last_blocks", "paper", "all"] = "classifier_bn"
    """Trainable layers: the classifier; also the last BatchNorm before it, with its statistics; also the last
    `num_blocks` blocks and all layers after them; the layers that the papers train in networks of this kind; or all,
    as DeiT III (arXiv 2204.07118) does after training small."""
    num_blocks: int = 1
    """Trainable blocks with layers "last_blocks"; 0 trains only the layers after the last block."""
    augmentation: Literal["test", "test_flip", "test_shift", "train"] = "test_flip"
    """test: images cropped as in testing; test_flip: flipped by `hflip` too; test_shift: also shifted sideways and with
    `jitter`; train: cropped as in training."""
    hflip: float = 0.5
    """Probability of a horizontal flip, with test_flip and test_shift."""
    jitter: float = 0.05
    """With test_shift: brightness, contrast and saturation are multiplied by 1 - jitter to 1 + jitter."""
    augment: AugmentConfig | None = None
    """Augmentation of the fine-tuning's batches on the device; none if null."""
    label_smoothing: float | None = None
    """Probability mass spread over all classes; as in training if null."""
    bce_loss: bool | None = None
    """Binary cross entropy; as in training if null."""
    batch_size: int | None = None
    """Images per step; as in training if null."""
    adapt: Literal["none", "batchnorm", "frechet"] = "none"
    """Label-free adaptation before the fine-tuning. batchnorm: recomputes BatchNorm's statistics at the test
    resolution; frechet: maps the pooled activations to their distribution at the training resolution (section 4.1)."""
    adapt_images: int = 1000
    """Training images that the adaptation uses."""
    cache: Literal["auto", "no"] = "auto"
    """"auto" evaluates the frozen layers once for all epochs if each epoch has the same images (augmentation test)."""
    cache_dtype: Literal["fp16", "fp32"] = "fp16"
    """Number format of the cached features."""
    cache_memory: float = 2.0
    """GiB of cached features that may be kept in memory; more goes to a temporary file."""
    cache_dir: Path | None = None
    """Folder of the temporary file; the system's folder if null."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.adapt == "none" or self.epochs != 0:
            positive("finetune.epochs", self.epochs)
        at_most("finetune.epochs", self.epochs, _MAX_EPOCHS, "epochs")
        for name in ("lr", "step_epochs", "adapt_images"):
            positive(f"finetune.{name}", getattr(self, name))
        if self.batch_size is not None:
            check_batch_size("finetune.batch_size", self.batch_size)
        for name in ("num_blocks", "cache_memory", "warmup_epochs", "weight_decay"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"finetune.{name}={getattr(self, name)} must not be negative")
        EvalCrop(hflip=self.hflip)
        for name in ("jitter", "label_smoothing"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise InputError(f"finetune.{name}={getattr(self, name)} must be in [0, 1)")

    @property
    def repeats(self) -> bool:
        """Whether every epoch sees the same pixels, so that frozen layers need not be evaluated again."""
        same = self.augmentation == "test" or (self.augmentation == "test_flip" and self.hflip == 0)
        return same and self.augment is None and self.layers != "all"

    def optimizer(self, training: OptimConfig) -> OptimConfig:
        """The settings of the optimizer and the loss, of which some are those of the training."""
        own = {name: getattr(self, name) for name in ("label_smoothing", "opt", "weight_decay", "bce_loss")}
        changes: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        if self.opt not in (None, training.opt):
            changes["opt_eps"] = None
        if self.bce_loss is False:
            changes["bce_target_thresh"] = None
        return replace(training, lr=self.lr, **changes)


@dataclass(frozen=True)
class VariantConfig:
    """One schedule for training the network, and the test resolution of the result."""

    epochs: int = 16
    """Passes over the training images."""
    resolution: ResolutionConfig = field(default_factory=ResolutionConfig)
    """Training resolution over epochs."""
    test_res: int = 224
    """Test resolution in pixels for the accuracy that is reported."""
    finetune: FinetuneConfig | None = None
    """FixRes fine-tuning for the test resolution; none if null."""
    regularization: RegularizationConfig | None = None
    """Regularization that grows with the resolution; the same in all epochs if null."""

    def __post_init__(self) -> None:
        check_fields(self)
        positive("epochs", self.epochs)
        at_most("epochs", self.epochs, _MAX_EPOCHS, "epochs")
        check_resolution(self.test_res)


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on."""

    name: str = "run"
    """The run folder is runs/NAME."""
    seed: int = 0
    """Seeds weights, order, crops and flips."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast type of forward and loss; "auto" takes bf16 where the network is faster with it."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """torch.compile of the network in training, one graph for each resolution; "auto" compiles on GPUs only, where the
    minute that it takes is worth it."""
    profile: int = 0
    """Training steps to trace in each variant's second epoch, into a file in the run folder; 0 traces none."""
    run_dir: Path | None = field(default=None, metadata={"option": "output"})
    """Run folder; runs/NAME if null. An older run there is moved aside, not overwritten."""
    resume: Literal["no", "auto"] = "no"
    """"auto" resumes the run in the run folder from its newest intact training checkpoint, if there is one."""
    fault_tolerance: FaultToleranceConfig = field(default_factory=FaultToleranceConfig)
    """Training checkpoints, and when a run is stopped."""
    eval_every: int = 4
    """Epochs between evaluations at the variant's test resolution, for the curves; 0 evaluates only at the end."""
    sweep: list[int] = field(default_factory=lambda: [128, 160, 192, 224, 256, 288])
    """Test resolutions in pixels at which every variant is evaluated at the end, before and after fine-tuning."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""
    augment: AugmentConfig | None = None
    """Augmentation of training batches on the device; none if null."""
    distill: DistillConfig | None = None
    """Knowledge distillation from a teacher; none if null."""
    train_crop: TrainCrop = field(default_factory=TrainCrop)
    """RandomResizedCrop of the training images."""
    eval_crop: EvalCrop = field(default_factory=EvalCrop)
    """Center crop of the test images."""
    variants: dict[str, VariantConfig] = field(default_factory=dict)
    """The schedules that are compared, by name; each has a folder NAME in the run folder. null leaves one out."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_most("profile", self.profile, _MAX_PROFILE, "steps")
        at_most("variants", len(self.variants), _MAX_VARIANTS, "variants")
        check_resolutions("sweep", self.sweep)
        check_device(self.device)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", self.name):
            raise InputError(
                f"name={self.name!r} must be up to 100 letters, digits, '.', '_' or '-': it names a folder"
            )
        check_seed(self.seed)
        if self.eval_every < 0:
            raise InputError(f"eval_every={self.eval_every} must be a number of epochs, or 0")
        if self.profile < 0:
            raise InputError(f"profile={self.profile} must be a number of steps, or 0")
        for variant in self.variants:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", variant) or variant in _RESERVED:
                raise InputError(
                    f"variants: {variant!r} cannot name a folder of the run; use up to 100 letters, digits, '_' and "
                    f"'-', and none of {', '.join(_RESERVED)}"
                )

        for variant, config in self.variants.items():
            grows = config.regularization is not None and config.regularization.rand_augment is not None
            if grows and not re.match(r"rand-(.*-)?m\d", (self.augment and self.augment.auto_augment) or ""):
                raise InputError(
                    f"variants.{variant}.regularization.rand_augment needs a RandAugment with a magnitude; set "
                    "augment.auto_augment, such as rand-m5-n2-mmax15"
                )

    def check_schedules(self) -> None:
        """Raises InputError for a resolution or a warm-up that no variant's epochs reach."""
        for name, variant in self.variants.items():
            last, resolution = variant.resolution.points[-1]
            if last > max(0, variant.epochs - (variant.resolution.ramp == "step")):
                raise InputError(
                    f"variants.{name}: {resolution} px from epoch {last} on are never reached in {variant.epochs} "
                    f"epochs; use other --variants.{name}.resolution.points, or more --variants.{name}.epochs"
                )
            if self.optim.warmup_epochs > variant.epochs:
                raise InputError(
                    f"variants.{name}: a warm-up of {self.optim.warmup_epochs:g} epochs is longer than the training "
                    f"of {variant.epochs}; use --optim.warmup_epochs {variant.epochs / 8:g}"
                )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run_dir or Path("runs") / self.name

    def sweep_resolutions(self) -> list[int]:
        """The sweep with every variant's test resolution in it, rising."""
        return sorted({*self.sweep, *(variant.test_res for variant in self.variants.values())})

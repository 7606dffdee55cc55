"""Settings of the optimizer, its schedule and the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fixres.config.checks import MAX_POINTS, at_most, check_batch_size, positive
from fixres.pipelines.spec import InputError, check_fields

Optimizer = Literal["sgd", "momentum", "lamb", "adamw", "rmsproptf"]
"""timm's names: SGD with Nesterov's momentum, with classical momentum, LAMB (arXiv 1904.00962), AdamW, RMSProp as in
TensorFlow."""


@dataclass(frozen=True)
class StepDecay:
    """A learning rate that falls in steps (arXiv 1812.01187, section 2.1)."""

    milestones: list[int] = field(default_factory=lambda: [30, 60, 90])
    """Epochs at which the rate falls, in rising order."""
    factor: float = 0.1
    """The rate is multiplied by this at each step."""
    decay_epochs: float | None = None
    """The rate falls every so many epochs instead, as 2.4 for EfficientNet; at the milestones if null."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.decay_epochs is not None:
            positive("optim.steps.decay_epochs", self.decay_epochs)
        if self.milestones != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise InputError(f"optim.steps.milestones={self.milestones} must rise from 1 or more, as [30, 60, 90]")
        at_most("optim.steps.milestones", len(self.milestones), MAX_POINTS, "epochs")
        if not 0 < self.factor < 1:
            raise InputError(f"optim.steps.factor={self.factor} must lie between 0 and 1")


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and loss; linear warm-up, cosine or step decay (arXiv 1812.01187, sections 3.1 and 5.1)."""

    lr: float = 0.1
    """Peak learning rate for a global batch of 256; scaled linearly with the batch size."""
    batch_size: int = 256
    """Images per step over all processes (the global batch size)."""
    per_process: int | None = None
    """Images per step of each process. If given, batch_size is this times the number of processes, and the learning
    rate is scaled accordingly; a run resumed with another number of processes then has other steps."""
    accumulate: int | None = None
    """Micro-batches per step: the gradients of this many batches of batch_size / accumulate images are summed. One if
    null."""
    opt: Optimizer = "sgd"
    """timm's name of the optimizer; "sgd" has Nesterov momentum, "momentum" the classical one."""
    opt_eps: float | None = None
    """Epsilon of lamb, adamw and rmsproptf; timm's default if null."""
    momentum: float = 0.9
    """Momentum of sgd, momentum and rmsproptf."""
    weight_decay: float = 5e-5
    """Penalty of weight matrices and kernels: L2; with adamw decoupled from the gradient."""
    decay_all: bool | None = None
    """Also penalizes BatchNorm and biases, as the paper's baseline does; no penalty on them if null (section 3.1)."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up from 0."""
    steps: StepDecay | None = None
    """Lowers the rate in steps; half a cosine to 0 if null."""
    label_smoothing: float = 0.1
    """Probability mass spread over all classes (section 5.2)."""
    bce_loss: bool | None = None
    """Binary cross entropy of each class instead of cross entropy over the classes (arXiv 2110.00476, section 3)."""
    bce_target_thresh: float | None = None
    """With bce_loss: targets above this become 1, the others 0, so that both classes of a mixed image count fully."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights; the average is evaluated, fine-tuned and saved instead of
    the weights. No average if null. EMA warm-up: after n steps the decay is at most 1 - n**(-2/3)."""

    def __post_init__(self) -> None:
        check_fields(self)
        positive("optim.lr", self.lr)
        self._check_kind()
        for name in ("batch_size", "per_process"):
            if (value := getattr(self, name)) is not None:
                check_batch_size(f"optim.{name}", value)
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"optim.label_smoothing={self.label_smoothing} must be in [0, 1)")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise InputError(f"optim.ema={self.ema} must be in [0, 1)")
        if self.accumulate is not None and (self.accumulate < 1 or self.batch_size % self.accumulate):
            raise InputError(f"optim.accumulate={self.accumulate} must divide optim.batch_size={self.batch_size}")
        if self.warmup_epochs < 0 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise InputError("optim: warmup_epochs and weight_decay must not be negative, momentum must be in [0, 1)")

    def _check_kind(self) -> None:
        """Raises InputError for settings that the optimizer or the loss does not have."""
        if self.opt_eps is not None:
            positive("optim.opt_eps", self.opt_eps)
            if self.opt in ("sgd", "momentum"):
                raise InputError(f"optim.opt_eps={self.opt_eps}: optim.opt={self.opt} has no epsilon; omit it")
        if self.bce_target_thresh is not None:
            if not self.bce_loss:
                raise InputError(
                    "optim.bce_target_thresh belongs to binary cross entropy; set optim.bce_loss, or omit it"
                )
            if not 0 <= self.bce_target_thresh < 1:
                raise InputError(f"optim.bce_target_thresh={self.bce_target_thresh} must be in [0, 1)")

    @property
    def micro_batch_size(self) -> int:
        """Images per batch that the network sees at once in training."""
        return self.batch_size // (self.accumulate or 1)

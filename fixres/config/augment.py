"""The tricks of "Bag of Tricks" (arXiv 1812.01187) that change batches and targets; all are off by default.

The other tricks are settings of the optimizer (`OptimConfig`) and of the network (`ModelConfig`). See docs/tricks.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fixres.config.network_arguments import check_arguments
from fixres.pipelines.spec import InputError, check_fields, check_resolution


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training batches on the device, after crop and flip and before normalization."""

    color: float = 0.0
    """Brightness, saturation and hue factors of each image are drawn from [1 - color, 1 + color]; the paper's: 0.4
    (section 2.1)."""
    pca: float = 0.0
    """Deviation of the noise along the principal colors of ImageNet; the paper's: 0.1 (section 2.1)."""
    mixup: float = 0.0
    """Alpha of mixup's Beta(alpha, alpha); the paper's: 0.2 (section 5.4)."""
    cutmix: float = 0.0
    """Alpha of CutMix's Beta(alpha, alpha); its authors' (arXiv 1905.04899): 1."""
    cutmix_prob: float = 0.5
    """If both are on: share of the batches with CutMix; the others get mixup."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("color", "cutmix_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name}={getattr(self, name)} must be in [0, 1]")
        for name in ("pca", "mixup", "cutmix"):
            # A plain comparison with 0 would accept inf.
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"augment.{name}={getattr(self, name)} must be 0 (off) or above")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that labels become class probabilities."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True)
class DistillConfig:
    """Knowledge distillation (section 5.3): the network also learns the outputs of a trained teacher."""

    teacher: str
    """A file of weights of any origin, or the timm name of cached weights; see `fixres.models.pretrained`."""
    arch: str | None = None
    """timm's name of the teacher, if the file does not contain it."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, if the file does not contain them."""
    temperature: float = 20.0
    """Divides the logits of both."""
    resolution: int | None = None
    """Side in pixels to which the teacher's images are resized; its own test resolution if null."""
    cache: Path | None = None
    """Folder that keeps the teacher's outputs for later runs with the same batches; not kept if null."""
    cache_dtype: Literal["fp16", "fp32"] = "fp16"
    """Number format of the kept outputs."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.teacher:
            raise InputError("distill.teacher is empty; give a file of weights, or omit distill")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"distill.temperature={self.temperature} must be above 0")
        if self.resolution is not None:
            check_resolution(self.resolution)
        check_arguments("distill.model_kwargs", self.model_kwargs)

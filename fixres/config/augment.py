"""The tricks of "Bag of Tricks" (arXiv 1812.01187) that change batches and targets; all off until a recipe asks.

The others are settings of the optimizer (`OptimConfig`) and of the network (`ModelConfig`). See docs/tricks.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.spec import InputError, check_resolution


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to training batches on the device, after crop and flip and before normalization."""

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
    """Where both are on: share of the batches that CutMix takes; mixup takes the others."""

    def __post_init__(self) -> None:
        for name in ("color", "cutmix_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name}={getattr(self, name)} must be in [0, 1]")
        for name in ("pca", "mixup", "cutmix"):
            # inf and nan pass a plain comparison with 0 in one of its two directions.
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"augment.{name}={getattr(self, name)} must be 0 (off) or above")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that labels become shares of classes."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True)
class DistillConfig:
    """Knowledge distillation (section 5.3): the network also learns what a trained teacher gives for each image."""

    teacher: str
    """A file of weights of any origin, or the timm name of cached ones; see `foreign_checkpoint.open_network`."""
    arch: str | None = None
    """timm's name of the teacher, for weights that do not tell it."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, for weights that do not tell them."""
    temperature: float = 20.0
    """Divides the logits of both."""
    resolution: int | None = None
    """Side in pixels to which the teacher's images are resized; the test resolution noted with it if null."""
    cache: Path | None = None
    """Folder where the teacher's outputs are kept for later runs that see the same batches; not kept if null."""
    cache_dtype: Literal["fp16", "fp32"] = "fp16"
    """Their number format."""

    def __post_init__(self) -> None:
        if not self.teacher:
            raise InputError("distill.teacher is empty; give a file of weights, or leave distill out")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"distill.temperature={self.temperature} must be above 0")
        if self.resolution is not None:
            check_resolution(self.resolution)

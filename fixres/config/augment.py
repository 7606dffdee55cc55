"""Augmentation of batches, and distillation, many from "Bag of Tricks" (arXiv 1812.01187); all are off by default.

Further tricks are settings of the optimizer (`OptimConfig`) and of the network (`ModelConfig`). See docs/tricks.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fixres.config.network_arguments import check_arguments
from fixres.pipelines.spec import InputError, check_fields, check_resolution

_NUMBER = r"\d+(\.\d*)?"
_RAND = rf"rand(-(m\d+|n[1-9]|p{_NUMBER}|mstd{_NUMBER}|mmax[1-9]\d*|inc[01]|t(weights|3a|3aw)))*"
_POLICY = rf"ta_wide|{_RAND}|(original|originalr|v0|v0r|3a)(-mstd{_NUMBER})?"


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
    auto_augment: str | None = None
    """Operations drawn for each image, in timm's words: RandAugment `rand-m6-mstd0.5-inc1`, AutoAugment `original` or
    `v0`, 3-Augment `3a`; or `ta_wide`, torchvision's TrivialAugmentWide. Off if null."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "random"] | None = None
    """Of rotations, shears and translations in auto_augment. If null: bilinear with `ta_wide`, otherwise random:
    bilinear or bicubic."""
    color_jitter: float = 0.0
    """torchvision's ColorJitter of brightness, contrast and saturation, each with this amount; DeiT III: 0.3."""
    grayscale_prob: float = 0.0
    """Share of the images that become gray."""
    gaussian_blur_prob: float = 0.0
    """Share of the images that are blurred, with a radius drawn from 0.1 to 2 pixels."""
    solarize_prob: float = 0.0
    """Share of the images whose values from 128 on are inverted."""
    re_prob: float = 0.0
    """Random erasing: share of the images in which rectangles are erased; in many recipes 0.25."""
    re_mode: Literal["const", "rand", "pixel"] = "const"
    """The erased part gets ImageNet's mean color, a random color, or a random color for each pixel."""
    re_count: int = 1
    """Random erasing: the largest number of rectangles in an image."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.auto_augment is not None and not re.fullmatch(_POLICY, self.auto_augment):
            raise InputError(
                f"augment.auto_augment={self.auto_augment} is not known; "
                "try rand-m6-mstd0.5-inc1, original, v0, 3a or ta_wide"
            )
        for name in ("color", "cutmix_prob", "grayscale_prob", "gaussian_blur_prob", "solarize_prob", "re_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name}={getattr(self, name)} must be in [0, 1]")
        for name in ("pca", "mixup", "cutmix", "color_jitter"):
            # A plain comparison with 0 would accept inf.
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"augment.{name}={getattr(self, name)} must be 0 (off) or above")
        if self.re_count < 1:
            raise InputError(f"augment.re_count={self.re_count} must be 1 or above")

    @property
    def operates(self) -> bool:
        """Whether images go through operations of `fixres.augment.operations`."""
        numbers = (self.color_jitter, self.grayscale_prob, self.gaussian_blur_prob, self.solarize_prob)
        return self.auto_augment is not None or any(numbers)

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

"""Augmentation of batches, and distillation, many from "Bag of Tricks" (arXiv 1812.01187); all are off by default.

Further tricks are settings of the optimizer (`OptimConfig`) and of the network (`ModelConfig`). See docs/tricks.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
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
    aug_repeats: int = 1
    """Repeated augmentation (arXiv 1901.09335): a batch has each of its images so many times, in other crops and
    augmentations; an epoch has as many steps as without, so it has fewer images."""
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
        for name in ("re_count", "aug_repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"augment.{name}={getattr(self, name)} must be 1 or above")

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
class RegularizationConfig:
    """Regularization that grows with the training resolution: progressive learning (arXiv 2104.00298, section 4.2).

    Each setting has two values, for the smallest and the largest resolution of the schedule; it is linear between them.
    """

    rand_augment: tuple[float, float] | None = None
    """Magnitude of RandAugment, rounded: the m of augment.auto_augment, which it replaces; constant if null."""
    mixup: tuple[float, float] | None = None
    """Alpha of mixup, instead of augment.mixup; constant if null."""
    drop_rate: tuple[float, float] | None = None
    """Dropout before the classifier, instead of model.kwargs.drop_rate; constant if null."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, limit in (("rand_augment", 100), ("mixup", 100), ("drop_rate", 1)):
            for value in getattr(self, name) or ():
                if not 0 <= value < limit:
                    raise InputError(f"regularization.{name}={value} must be in [0, {limit})")

    def augment_at(self, share: float, base: AugmentConfig) -> AugmentConfig:
        """The augmentation at a resolution, whose `share` is 0 for the smallest and 1 for the largest."""
        changes: dict[str, Any] = {}
        if self.mixup is not None:
            changes["mixup"] = between(self.mixup, share)
        if self.rand_augment is not None and base.auto_augment is not None:
            magnitude = round(between(self.rand_augment, share))
            changes["auto_augment"] = re.sub(r"(?<=-)m\d+", f"m{magnitude}", base.auto_augment)
        return replace(base, **changes)


def between(ends: tuple[float, float], share: float) -> float:
    """The value at `share` of the way from the first to the second."""
    return ends[0] + (ends[1] - ends[0]) * share


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

"""The networks of both FixRes papers: training, resolution of the fine-tuning, and accuracy after it.

Training resolution, crop, interpolation and normalization are those of timm's weights of the same origin; a test
compares them with timm. Resolutions and accuracies of the fine-tuning are the papers'. Unknown values are None.

    python -m fixres.models.zoo
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD

_FIXRES = "arXiv 1906.06423, table 2 by the authors' README.md"
_FIXEFFICIENTNET = "arXiv 2003.08237 and the authors' README_FixEfficientNet.md"
_TIMM = "timm"
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ZooModel:
    """A trained network and its fine-tuning.

    Attributes:
        timm_name: timm's name with the tag of its weights, or without a tag if timm has no weights.
        train_res: training resolution in pixels.
        finetuned_res: test resolution in pixels of the paper's fine-tuning, or None.
        crop_pct: of timm's test crop at the training resolution.
        finetuned_crop_pct: of the authors' test crop at `finetuned_res` (their code resizes to 256/224 of it), or None.
        interpolation: how the training and test images were resized.
        mean: channel means in [0, 1], RGB.
        std: channel deviations in [0, 1], RGB.
        finetuned_top1: top1 on ImageNet's val after fine-tuning with the better of the paper's augmentations, or None.
        source: of the figures of the fine-tuning.
    """

    name: str
    timm_name: str
    train_res: int
    finetuned_res: int | None = None
    crop_pct: float = 0.875
    finetuned_crop_pct: float | None = None
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    finetuned_top1: float | None = None
    finetuned_top5: float | None = None
    source: str = _TIMM
    timm_kwargs: dict[str, Any] = field(default_factory=dict)


def _resnets() -> list[ZooModel]:
    """ResNet-50 B is torchvision's; C and D have a deep stem, D average pooling in its shortcuts too."""
    finetuned = {"crop_pct": 0.875, "finetuned_crop_pct": 0.875, "source": _FIXRES}
    weak = {"interpolation": "bilinear"}
    return [
        ZooModel("resnet50_b", "resnet50.tv_in1k", 224, 384, finetuned_top1=0.791, finetuned_top5=0.946, **weak,
                 **finetuned),
        ZooModel("resnet50_c", "resnet50c.gluon_in1k", 224),
        ZooModel("resnet50_d", "resnet50d.gluon_in1k", 224),
        ZooModel("resnext101_32x8d", "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", 224, **weak),
        ZooModel("resnext101_32x16d", "resnext101_32x16d.fb_wsl_ig1b_ft_in1k", 224, **weak),
        ZooModel("resnext101_32x32d", "resnext101_32x32d.fb_wsl_ig1b_ft_in1k", 224, **weak),
        # timm has no such network, but the next smaller one takes the width as an argument.
        ZooModel("resnext101_32x48d", "resnext101_32x32d", 224, 320, finetuned_top1=0.864, finetuned_top5=0.980,
                 timm_kwargs={"base_width": 48}, **weak, **finetuned),
        ZooModel("pnasnet5", "pnasnet5large.tf_in1k", 331, 480, crop_pct=0.911, finetuned_crop_pct=0.875, mean=_HALF,
                 std=_HALF, finetuned_top1=0.837, finetuned_top5=0.968, source=_FIXRES),
    ]  # fmt: skip


# Name, training resolution, timm's crop, then resolution, top1 and top5 of the fine-tuning: without and with
# further training data.
# The former are weights of adversarial training (arXiv 1911.09665), the latter of Noisy Student (arXiv 1911.04252).
_EFFICIENTNETS = (
    ("b0", 224, 0.875, (320, 0.793, 0.946), (320, 0.802, 0.954)),
    ("b1", 240, 0.882, (384, 0.813, 0.957), (384, 0.826, 0.964)),
    ("b2", 260, 0.890, (420, 0.820, 0.960), (420, 0.836, 0.969)),
    ("b3", 300, 0.904, (472, 0.830, 0.964), (472, 0.850, 0.974)),
    ("b4", 380, 0.922, (512, 0.840, 0.970), (472, 0.859, 0.977)),
    ("b5", 456, 0.934, (576, 0.847, 0.972), (576, 0.864, 0.979)),
    ("b6", 528, 0.942, (576, 0.849, 0.973), (680, 0.867, 0.980)),
    ("b7", 600, 0.949, (632, 0.853, 0.974), (632, 0.871, 0.982)),
    ("b8", 672, 0.954, (800, 0.857, 0.976), None),
    ("l2", 475, 0.936, None, (600, 0.885, 0.987)),
)


def _efficientnets() -> list[ZooModel]:
    models = []
    for size, train_res, crop_pct, without, with_more in _EFFICIENTNETS:
        for finetuned, suffix, tag, normal in (
            (without, "", "ap_in1k", (_HALF, _HALF)),
            (with_more, "_ns", "ns_jft_in1k_475" if size == "l2" else "ns_jft_in1k", (IMAGENET_MEAN, IMAGENET_STD)),
        ):
            if finetuned is None:
                continue
            test_res, top1, top5 = finetuned
            models.append(ZooModel(f"efficientnet_{size}{suffix}", f"tf_efficientnet_{size}.{tag}", train_res, test_res,
                                   crop_pct, mean=normal[0], std=normal[1], finetuned_top1=top1, finetuned_top5=top5,
                                   source=_FIXEFFICIENTNET))  # fmt: skip
    return models


ZOO = MappingProxyType({model.name: model for model in [*_resnets(), *_efficientnets()]})
"""All networks by name."""


def zoo_table() -> str:
    """The zoo as text: a line for each network."""
    lines = [f"{'name':20} {'timm':38} {'train':>6} {'tuned':>5} {'crop':>6} {'top1':>6} {'top5':>6}  source"]
    for model in ZOO.values():
        arguments = "".join(f" {key}={value}" for key, value in model.timm_kwargs.items())
        top1, top5 = _percent(model.finetuned_top1), _percent(model.finetuned_top5)
        lines.append(
            f"{model.name:20} {model.timm_name + arguments:38} {model.train_res:6} {model.finetuned_res or '-':>5} "
            f"{model.crop_pct:6.3f} {top1:>6} {top5:>6}  {model.source}"
        )
    return "\n".join(lines)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


if __name__ == "__main__":
    import sys

    sys.stdout.write(zoo_table() + "\n")

"""The recipes for ImageNet have the values of their sources, written here as in the papers' tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm

from fixres.config.parsing import RECIPES, parse_recipe
from fixres.config.recipe import Recipe
from fixres.experiment.variant_parts import VariantPlan
from fixres.pipelines.spec import InputError
from fixres.training.schedule import scaled_lr, training_lr

_RSB = ("variant", "train", "epochs", "rate", "decay", "smoothing", "depth", "repeats", "randaugment", "mixup")
_IMAGENET = sorted((RECIPES / "imagenet").glob("*.yaml"))


def recipe_of(name: str, *words: str) -> Recipe:
    return parse_recipe(["--config", f"imagenet/{name}", *words])


def peak_of(recipe: Recipe) -> float:
    """The rate of the recipe's own batch, as papers give it."""
    return scaled_lr(recipe.optim.lr, recipe.optim.batch_size)


@pytest.mark.parametrize(
    "row",
    [
        ("a1", 224, 600, 5e-3, 0.01, 0.1, 0.05, 3, "rand-m7-mstd0.5-inc1", 0.2),
        ("a2", 224, 300, 5e-3, 0.02, 0.0, 0.05, 3, "rand-m7-mstd0.5-inc1", 0.1),
        ("a3", 160, 100, 8e-3, 0.02, 0.0, 0.0, 1, "rand-m6-mstd0.5-inc1", 0.1),
    ],
    ids=lambda row: row[0],
)
def test_resnet_strikes_back(row: tuple[Any, ...]) -> None:
    """arXiv 2110.00476, table 2."""
    recipe = recipe_of(f"rsb_{row[0]}")
    optim, augment, variant = recipe.optim, recipe.augment, recipe.variants[row[0]]
    assert augment is not None
    found = (
        row[0], variant.resolution.points[0][1], variant.epochs, pytest.approx(peak_of(recipe)), optim.weight_decay,
        optim.label_smoothing, recipe.model.kwargs.get("drop_path_rate", 0.0), augment.aug_repeats,
        augment.auto_augment, augment.mixup,
    )  # fmt: skip
    assert dict(zip(_RSB, row, strict=True)) == dict(zip(_RSB, found, strict=True))
    assert (optim.opt, optim.batch_size, optim.warmup_epochs, optim.bce_loss, augment.cutmix) == (
        "lamb",
        2048,
        5,
        True,
        1,
    )
    assert optim.steps is None and optim.ema is None and augment.re_prob == augment.color_jitter == 0
    assert recipe.model.name == "resnet50" and recipe.eval_crop.crop_pct == 0.95 and variant.test_res == 224


def test_torchvision() -> None:
    """The command in torchvision's references/classification for IMAGENET1K_V2."""
    recipe = recipe_of("torchvision_v2")
    optim, augment, variant = recipe.optim, recipe.augment, recipe.variants["v2"]
    assert augment is not None and optim.ema is not None
    assert (optim.opt, optim.batch_size, peak_of(recipe), optim.weight_decay) == ("momentum", 8 * 128, 0.5, 2e-5)
    assert (optim.warmup_epochs, optim.label_smoothing, optim.momentum, optim.decay_all) == (5, 0.1, 0.9, None)
    assert (augment.auto_augment, augment.re_prob, augment.mixup, augment.cutmix) == ("ta_wide", 0.1, 0.2, 1.0)
    assert (variant.epochs, variant.resolution.points, variant.test_res) == (600, [(0, 176)], 224)
    assert augment.aug_repeats == 4
    assert int(224 / recipe.eval_crop.crop_pct) == 232  # --val-resize-size
    # --model-ema-decay 0.99998, which its script adjusts to batch and epochs, and applies every 32 steps.
    assert optim.ema**32 == pytest.approx(1 - (1 - 0.99998) * 1024 * 32 / 600, abs=1e-5)


def test_deit3() -> None:
    """arXiv 2204.07118 by the command for ViT-S of the authors' README_revenge.md, and that for ViT-B at 224 px."""
    recipe = recipe_of("deit3_small")
    optim, augment, variant = recipe.optim, recipe.augment, recipe.variants["small"]
    assert augment is not None and variant.finetune is not None and variant.finetune.augment is not None
    assert (optim.opt, optim.batch_size, peak_of(recipe), optim.weight_decay) == ("lamb", 8 * 256, 4e-3, 0.05)
    assert (optim.warmup_epochs, optim.label_smoothing, optim.bce_loss) == (5, 0.0, True)
    assert recipe.model.kwargs["drop_path_rate"] == 0.05 and recipe.eval_crop.crop_pct == 1.0
    assert (augment.auto_augment, augment.color_jitter, augment.mixup, augment.cutmix) == ("3a", 0.3, 0.8, 1.0)
    assert (variant.epochs, variant.resolution.points, variant.test_res) == (800, [(0, 160)], 224)
    assert augment.aug_repeats == 3
    finetune = variant.finetune
    own, more = finetune.optimizer(optim), finetune.augment
    assert finetune.batch_size is not None
    assert (own.opt, scaled_lr(own.lr, finetune.batch_size), own.weight_decay) == ("adamw", 1e-5, 0.1)
    assert (own.label_smoothing, own.bce_loss, finetune.batch_size) == (0.1, False, 8 * 64)
    assert (finetune.epochs, finetune.warmup_epochs, finetune.layers, finetune.augmentation) == (20, 5, "all", "train")
    assert (more.auto_augment, more.mixup, more.cutmix) == ("rand-m9-mstd0.5-inc1", 0.8, 1.0)


@pytest.mark.parametrize(
    ("size", "largest", "magnitudes", "mixup", "drop_rate", "test_res"),
    [("s", 300, (5, 15), (0, 0), (0.1, 0.3), 384), ("m", 380, (5, 20), (0, 0.2), (0.1, 0.4), 480)],
)
def test_efficientnetv2(
    size: str, largest: int, magnitudes: tuple[int, int], mixup: tuple[float, float], drop_rate: tuple, test_res: int
) -> None:
    """arXiv 2104.00298, table 6 and section 5.1."""
    recipe = recipe_of(f"efficientnetv2_{size}")
    optim, plan = recipe.optim, VariantPlan("progressive", recipe)
    assert (optim.opt, optim.batch_size, peak_of(recipe)) == ("rmsproptf", 4096, pytest.approx(0.256))
    assert (optim.momentum, optim.weight_decay, optim.ema) == (0.9, 1e-5, 0.9999)
    rates = [training_lr(epoch, 350, optim) / 0.256 for epoch in (2.5, 7.1, 7.3, 24.1)]
    assert rates == pytest.approx([0.5 * 0.97, 0.97**2, 0.97**3, 0.97**10])
    assert recipe.model.kwargs == {"drop_path_rate": 0.2, "bn_momentum": 0.01}
    assert plan.config.epochs == 350 and plan.config.test_res == test_res
    starts = [start for start, _ in plan.config.resolution.points]
    assert starts == [round(350 * stage / 4 - 0.5) if stage % 2 else 350 * stage // 4 for stage in range(4)]
    for stage, start in enumerate(starts):
        augment, dropout = plan.regularization(start)
        assert augment is not None and augment.auto_augment is not None
        assert abs(plan.resolutions[start] - (128 + (largest - 128) * stage / 3)) <= 2
        words, magnitude = augment.auto_augment, magnitudes[0] + (magnitudes[1] - magnitudes[0]) * stage / 3
        assert abs(int(words.split("-")[1][1:]) - magnitude) < 0.6 and words.endswith(f"-n2-mmax{magnitudes[1]}")
        assert augment.mixup == pytest.approx(mixup[0] + (mixup[1] - mixup[0]) * stage / 3, abs=0.01)
        assert dropout == pytest.approx(drop_rate[0] + (drop_rate[1] - drop_rate[0]) * stage / 3, abs=0.01)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("rsb_a1", "resnet50.a1_in1k"),
        ("rsb_a3", "resnet50.a3_in1k"),
        ("torchvision_v2", "resnet50.tv2_in1k"),
        ("efficientnetv2_s", "tf_efficientnetv2_s.in1k"),
        ("efficientnetv2_m", "tf_efficientnetv2_m.in1k"),
    ],
)
def test_resolutions_and_crops_are_those_of_timms_record(name: str, weights: str) -> None:
    record, recipe = timm.get_pretrained_cfg(weights), recipe_of(name)
    (variant,) = recipe.variants.values()
    assert record is not None and record.interpolation == recipe.eval_crop.interpolation
    if name == "rsb_a1":  # timm tests these weights larger than the paper
        assert (record.crop_pct, record.input_size[-1]) == (recipe.eval_crop.crop_pct, variant.test_res)
        return
    largest = variant.resolution.points[-1][1]
    assert record.input_size[-1] == (largest if name != "efficientnetv2_m" else 384)  # the paper has 380
    assert (record.test_input_size or ())[-1] == variant.test_res
    assert (record.test_crop_pct or record.crop_pct) == pytest.approx(recipe.eval_crop.crop_pct, abs=1e-3)


@pytest.mark.parametrize("path", _IMAGENET, ids=lambda path: path.stem)
def test_each_names_its_source_and_that_it_was_not_run(path: Path) -> None:
    text = " ".join(line.strip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    assert "NOT RUN BY US on ImageNet" in text.replace("NOT RUN  BY", "NOT RUN BY")
    assert "Published: " in text and "batches of " in text and ("arXiv" in text or "pytorch.org" in text)
    recipe = recipe_of(path.stem)
    assert f"--config imagenet/{recipe.name}" in text and recipe.name == path.stem
    recipe.check_schedules()


def test_magnitudes_need_a_randaugment() -> None:
    with pytest.raises(InputError, match=r"regularization.rand_augment needs a RandAugment.*augment.auto_augment"):
        recipe_of("efficientnetv2_s", "--augment.auto-augment", "ta_wide")
    with pytest.raises(InputError, match=r"regularization.drop_rate=1.5 must be in \[0, 1\)"):
        recipe_of("efficientnetv2_s", "--variants.progressive.regularization.drop-rate", "0,1.5")


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"optim.opt_eps=0.001: optim.opt=sgd has no epsilon"):
        recipe_of("efficientnetv2_s", "--optim.opt", "sgd")
    with pytest.raises(InputError, match=r"optim.bce_target_thresh belongs to binary cross entropy"):
        recipe_of("rsb_a3", "--optim.bce-loss", "false")

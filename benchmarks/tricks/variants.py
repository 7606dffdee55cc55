"""The tricks that benchmarks.tricks adds to a baseline, and its variants.

A stack adds one trick after another: those of arXiv 1812.01187 in its order, then others. Leave-one-out has all tricks
but one, and shows a trick that another one makes unnecessary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fixres.config.augment import DistillConfig
from fixres.config.recipe import AugmentConfig, FinetuneConfig, Recipe, ResolutionConfig, VariantConfig
from fixres.pipelines.spec import InputError


@dataclass(frozen=True)
class Trick:
    """One switch."""

    name: str  # in file names and on the command line
    title: str  # in tables
    source: str  # section of arXiv 1812.01187, or another paper
    on: Callable[[Recipe], Recipe]  # turns a recipe without it into one with it


@dataclass(frozen=True)
class Variant:
    """One training: the baseline with some tricks."""

    name: str  # of its folder
    tricks: tuple[str, ...]  # names of its tricks
    recipe: Recipe  # of the training, without its seed and folder


def _optim(**values: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, optim=replace(recipe.optim, **values))


def _augment(**values: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, augment=replace(recipe.augment or AugmentConfig(), **values))


def _network(**values: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, model=replace(recipe.model, kwargs=recipe.model.kwargs | values))


def _schedule(recipe: Recipe, **values: Any) -> Recipe:
    return replace(recipe, variants={"baseline": replace(variant_of(recipe), **values)})


def _efficient(recipe: Recipe) -> Recipe:
    """Warm-up over an eighth of the run, zero gamma, no decay on biases and BatchNorm."""
    recipe = _optim(warmup_epochs=variant_of(recipe).epochs / 8, decay_all=None)(recipe)
    return _network(zero_init_last=True)(recipe)


def _progressive(recipe: Recipe) -> Recipe:
    """The first half of the run at three quarters of the resolution."""
    variant = variant_of(recipe)
    side, multiple = train_res(recipe), variant.resolution.multiple
    smaller = max(side * 3 // 4 // multiple * multiple, multiple)
    points = [(0, smaller), (variant.epochs // 2, side)] if variant.epochs > 1 else [(0, side)]
    return _schedule(recipe, resolution=ResolutionConfig(points, multiple=multiple))


def _finetuned(recipe: Recipe) -> Recipe:
    """Fine-tuned for 1.5 times the resolution, as the variant `small` of savings.yaml."""
    finetune = FinetuneConfig(epochs=4, lr=0.04, augmentation="test")
    return _schedule(recipe, test_res=train_res(recipe) * 3 // 2, finetune=finetune)


TRICKS = (
    Trick("colors", "colors, PCA noise", "section 2.1", _augment(color=0.4, pca=0.1)),
    Trick("efficient", "warm-up, zero gamma, no decay on biases", "section 3.1", _efficient),
    Trick("resnet-d", "ResNet-D", "section 4", _network(stem_type="deep", avg_down=True)),
    Trick("cosine", "cosine decay", "section 5.1", _optim(steps=None)),
    Trick("smoothing", "label smoothing", "section 5.2", _optim(label_smoothing=0.1)),
    Trick("mixup", "mixup", "section 5.4", _augment(mixup=0.2)),
    Trick("cutmix", "CutMix in half of the batches", "arXiv 1905.04899", _augment(cutmix=1.0)),
    # The run has some hundred steps, so the average is short.
    Trick("ema", "average of the weights", "docs/tricks.md", _optim(ema=0.98)),
    Trick("blurpool", "blur pooling", "arXiv 1904.11486", _network(aa_layer="blurpool")),
    Trick("progressive", "progressive resolution", "docs/fixres.md", _progressive),
    Trick("fixres", "FixRes", "arXiv 1906.06423", _finetuned),
)


def distillation(teacher: Path) -> Trick:
    """Distillation from a trained network, added to all other tricks."""
    config = DistillConfig(str(teacher.resolve()))
    return Trick("distillation", "distillation", "section 5.3", lambda recipe: replace(recipe, distill=config))


def variant_of(recipe: Recipe) -> VariantConfig:
    """The one variant of the benchmark's recipe."""
    variants = recipe.variants
    if list(variants) != ["baseline"]:
        raise InputError(f"variants: {', '.join(variants)}; benchmarks.tricks trains one variant, called baseline")
    return variants["baseline"]


def train_res(recipe: Recipe) -> int:
    """The training resolution at the end, in pixels."""
    return variant_of(recipe).resolution.points[-1][1]


def variants(recipe: Recipe, tricks: Sequence[Trick] = TRICKS, on_top: Sequence[Trick] = ()) -> list[Variant]:
    """The stack, then all tricks but one. All but the last trick is a part of the stack and is not trained again.

    Tricks `on_top` are added at the end of the stack; leave-one-out does not use them.
    """
    stack = [*tricks, *on_top]
    found = [Variant("baseline", (), recipe)]
    found += [_variant(one.name, recipe, stack[: k + 1]) for k, one in enumerate(stack)]
    return found + [_variant(f"without-{one.name}", recipe, [t for t in tricks if t is not one]) for one in tricks[:-1]]


def _variant(name: str, recipe: Recipe, tricks: Sequence[Trick]) -> Variant:
    for trick in tricks:
        recipe = trick.on(recipe)
    return Variant(name, tuple(trick.name for trick in tricks), recipe)


def chosen(found: Sequence[Variant], words: Sequence[str]) -> list[Variant]:
    """The variants that `--variant` names: all, stack, leave-one-out, or names."""
    names = [one.name for one in found]
    without = {name for name in names if name.startswith("without-")}
    groups = {"all": set(names), "stack": set(names) - without, "leave-one-out": without}
    groups |= {name: {name} for name in names}
    wanted: set[str] = set()
    for word in words:
        if word not in groups:
            raise InputError(f"--variant {word} is unknown; there are {', '.join(groups)}")
        wanted |= groups[word]
    return [one for one in found if one.name in wanted]

"""The tricks that benchmarks.tricks adds to a baseline, and the trainings that tell what each brings.

A stack adds one trick after another, in the order of arXiv 1812.01187; what is not in that paper follows. Leave-one-out
has all but one: a trick that another makes superfluous shows it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fixres.config.augment import DistillConfig
from fixres.config.recipe import AugmentConfig, FinetuneConfig, Recipe, ResolutionConfig, VariantConfig
from pipelines.spec import InputError


@dataclass(frozen=True)
class Trick:
    """One switch.

    Attributes:
        name: in file names and on the command line.
        title: in tables.
        source: section of arXiv 1812.01187, or another paper.
        on: a recipe with it, from one without it.
    """

    name: str
    title: str
    source: str
    on: Callable[[Recipe], Recipe]


@dataclass(frozen=True)
class Variant:
    """One training: the baseline with some tricks.

    Attributes:
        name: of its folder.
        tricks: names of those that are on.
        recipe: what is trained, its seed and folder apart.
    """

    name: str
    tricks: tuple[str, ...]
    recipe: Recipe


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
    """Fixed for half as large again, as the variant `small` of savings.yaml."""
    return _schedule(
        recipe, test_res=train_res(recipe) * 3 // 2, finetune=FinetuneConfig(epochs=4, lr=0.04, augmentation="test")
    )


TRICKS = (
    Trick("colors", "colors, PCA noise", "section 2.1", _augment(color=0.4, pca=0.1)),
    Trick("efficient", "warm-up, zero gamma, no decay on biases", "section 3.1", _efficient),
    Trick("resnet-d", "ResNet-D", "section 4", _network(stem_type="deep", avg_down=True)),
    Trick("cosine", "cosine decay", "section 5.1", _optim(steps=None)),
    Trick("smoothing", "label smoothing", "section 5.2", _optim(label_smoothing=0.1)),
    Trick("mixup", "mixup", "section 5.4", _augment(mixup=0.2)),
    Trick("cutmix", "CutMix in half of the batches", "arXiv 1905.04899", _augment(cutmix=1.0)),
    # Some hundred steps: a short memory.
    Trick("ema", "average of the weights", "docs/tricks.md", _optim(ema=0.98)),
    Trick("blurpool", "blur pooling", "arXiv 1904.11486", _network(aa_layer="blurpool")),
    Trick("progressive", "progressive resolution", "docs/fixres.md", _progressive),
    Trick("fixres", "FixRes", "arXiv 1906.06423", _finetuned),
)


def distillation(teacher: Path) -> Trick:
    """Learning from a trained network, too, stacked on all others."""
    config = DistillConfig(str(teacher.resolve()))
    return Trick("distillation", "distillation", "section 5.3", lambda recipe: replace(recipe, distill=config))


def variant_of(recipe: Recipe) -> VariantConfig:
    """The one variant of the benchmark's recipe."""
    variants = recipe.variants
    if list(variants) != ["baseline"]:
        raise InputError(
            f"variants: {', '.join(variants)}; the benchmark of tricks trains one variant, called baseline"
        )
    return variants["baseline"]


def train_res(recipe: Recipe) -> int:
    """The resolution in pixels that the training ends with."""
    return variant_of(recipe).resolution.points[-1][1]


def variants(recipe: Recipe, tricks: Sequence[Trick] = TRICKS, on_top: Sequence[Trick] = ()) -> list[Variant]:
    """The stack, then all less one; what has the same tricks as a stack is not trained again.

    Args:
        recipe: the baseline.
        tricks: in order.
        on_top: stacked further, but not part of what leave-one-out calls all.
    """
    stack = [*tricks, *on_top]
    found = [Variant("baseline", (), recipe)]
    found += [_variant(one.name, recipe, stack[: k + 1]) for k, one in enumerate(stack)]
    # All less the last trick is the stack up to the one before it.
    return found + [_variant(f"less-{one.name}", recipe, [t for t in tricks if t is not one]) for one in tricks[:-1]]


def _variant(name: str, recipe: Recipe, tricks: Sequence[Trick]) -> Variant:
    for trick in tricks:
        recipe = trick.on(recipe)
    return Variant(name, tuple(trick.name for trick in tricks), recipe)


def chosen(found: Sequence[Variant], words: str) -> list[Variant]:
    """Those that `--variants` names: all, stack, less, or names with commas."""
    wanted = words.split(",")
    groups = {"all": lambda _: True, "stack": lambda one: not one.startswith("less-")}
    groups["less"] = lambda one: one.startswith("less-")
    known = {one.name for one in found} | groups.keys()
    if unknown := [word for word in wanted if word not in known]:
        raise InputError(f"--variants: {unknown[0]} is unknown; there are {', '.join([*groups, *_names(found)])}")
    return [
        one for one in found if any(word == one.name or groups.get(word, lambda _: False)(one.name) for word in wanted)
    ]


def _names(found: Sequence[Variant]) -> list[str]:
    return [one.name for one in found]

"""A whole run with every trick on: it repeats, evaluates the EMA, and equals the plain run if all are off."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fixres.config.augment import AugmentConfig, DistillConfig
from fixres.config.recipe import (
    FinetuneConfig,
    OptimConfig,
    Recipe,
    ResolutionConfig,
    StepDecay,
    VariantConfig,
)
from fixres.experiment.results import VariantResult
from fixres.experiment.run_folder import RunLog
from fixres.experiment.variant import VariantRun
from fixres.experiment.variant_parts import VariantPlan
from fixres.models.checkpoint import load_checkpoint
from fixres.pipelines.spec import Loader
from tests.fixres.conftest import CPU, TINY

OpenCoded = Callable[..., Loader]


def _plain(folder: Path) -> Recipe:
    variant = VariantConfig(2, ResolutionConfig([(0, 32), (1, 48)], multiple=16), 48, FinetuneConfig(1))
    optim = OptimConfig(lr=0.8, batch_size=8, warmup_epochs=1)
    return Recipe(
        run_dir=folder, device="cpu", precision="fp32", eval_every=0, sweep=[48], model=TINY, optim=optim,
        variants={"baseline": variant},
    )  # fmt: skip


def _all_on(folder: Path, teacher: Path) -> Recipe:
    plain = _plain(folder)
    return replace(
        plain,
        model=replace(TINY, kwargs={**TINY.kwargs, "aa_layer": "blurpool"}, init="xavier"),
        optim=replace(plain.optim, accumulate=2, ema=0.8, steps=StepDecay([1])),
        augment=AugmentConfig(
            color=0.4,
            pca=0.1,
            mixup=0.2,
            cutmix=1.0,
            auto_augment="rand-m6-mstd0.5-inc1",
            re_prob=0.25,
            re_mode="pixel",
        ),
        distill=DistillConfig(str(teacher)),
    )


def _train(recipe: Recipe, open_coded: OpenCoded) -> VariantResult:
    """The recipe's variant from the first epoch to fine-tuning."""
    with closing(RunLog(recipe.folder, recipe, {})) as log:
        variant = _opened(recipe, open_coded, log)
        while not variant.is_trained:
            variant.train_epoch()
        return variant.finish()


@pytest.mark.parametrize("stage", [0, 1])
def test_a_final_evaluation_that_is_resumed_in_the_middle_has_the_same_result(
    stage: int, tmp_path: Path, teacher: Path, open_coded: OpenCoded
) -> None:
    """With an EMA of the weights, which is fine-tuned: resumed after the evaluation, and after the fine-tuning."""
    whole, other, kept = _all_on(tmp_path / "whole", teacher), _all_on(tmp_path / "other", teacher), []
    with closing(RunLog(whole.folder, whole, {})) as log:
        variant = _opened(whole, open_coded, log)
        while not variant.is_trained:
            variant.train_epoch()
        wanted = variant.finish(lambda: kept.append(copy.deepcopy(variant.state_dict())))
    with closing(RunLog(other.folder, other, {})) as log:
        resumed = _opened(other, open_coded, log)
        resumed.load_state_dict(kept[stage])
        got = resumed.finish()
    assert len(kept) == 2 and _same(_saved(whole, "finetuned.pt"), _saved(other, "finetuned.pt"))
    assert got.sweep_before == wanted.sweep_before and (got.finetune_epochs == wanted.finetune_epochs) == (stage == 1)
    for name in ("top1", "top5", "top1_before_finetune", "num_bad_samples", "train_seconds"):
        assert getattr(got, name) == getattr(wanted, name)
    assert [point.top1 for point in got.curve] == [point.top1 for point in wanted.curve]


def _opened(recipe: Recipe, open_coded: OpenCoded, log: RunLog) -> VariantRun:
    return VariantRun(VariantPlan("baseline", recipe), open_coded, open_coded("val"), CPU, log)


def _saved(recipe: Recipe, file: str = "trained.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(recipe.folder / "baseline" / file)[0].state_dict()


def _run(recipe: Recipe, open_coded: OpenCoded) -> dict[str, torch.Tensor]:
    _train(recipe, open_coded)
    return _saved(recipe)


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_with_every_trick_on_repeats(tmp_path: Path, teacher: Path, open_coded: OpenCoded) -> None:
    one = _run(_all_on(tmp_path / "one", teacher), open_coded)
    assert _same(one, _run(_all_on(tmp_path / "two", teacher), open_coded))
    assert not _same(one, _run(replace(_all_on(tmp_path / "three", teacher), seed=1), open_coded))
    assert all(torch.isfinite(value).all() for value in one.values())


def _fields(recipe: Recipe, **optim: object) -> Recipe:
    return replace(recipe, optim=replace(recipe.optim, **optim))  # type: ignore[arg-type]


def test_each_switch_reaches_the_training(tmp_path: Path, teacher: Path, open_coded: OpenCoded) -> None:
    plain = _plain(tmp_path / "plain")
    weights = _run(plain, open_coded)
    switched = {
        "steps": _fields(plain, steps=StepDecay([1])),
        "decay": _fields(plain, decay_all=True, weight_decay=0.1),
        "micro": _fields(plain, accumulate=2),
        "average": _fields(plain, ema=0.8),
        "xavier": replace(plain, model=replace(TINY, init="xavier")),
        "color": replace(plain, augment=AugmentConfig(color=0.4)),
        "pca": replace(plain, augment=AugmentConfig(pca=0.1)),
        "mixup": replace(plain, augment=AugmentConfig(mixup=0.2)),
        "cutmix": replace(plain, augment=AugmentConfig(cutmix=1.0)),
        "teacher": replace(plain, distill=DistillConfig(str(teacher))),
    }
    for name, recipe in switched.items():
        assert not _same(weights, _run(replace(recipe, run_dir=tmp_path / name), open_coded)), name
    off = replace(plain, run_dir=tmp_path / "off", augment=AugmentConfig())
    assert _same(weights, _run(_fields(off, accumulate=1), open_coded))


def test_epochs_draw_other_colors(tmp_path: Path, open_coded: OpenCoded, monkeypatch: pytest.MonkeyPatch) -> None:
    from fixres.augment.batch_transform import BatchTransform

    epochs: list[int] = []
    monkeypatch.setattr(BatchTransform, "set_epoch", lambda _, epoch: epochs.append(epoch))
    _run(replace(_plain(tmp_path / "run"), augment=AugmentConfig(pca=0.1)), open_coded)
    assert epochs == [0, 1]


def test_the_ema_is_evaluated_and_saved_instead_of_the_weights(tmp_path: Path, open_coded: OpenCoded) -> None:
    """With decay 0 it is the last weights; they must be those of a run without it, before and after fine-tuning."""
    plain = _plain(tmp_path / "plain")
    _train(plain, open_coded)
    zero = replace(_fields(plain, ema=0.0), run_dir=tmp_path / "zero")
    result = _train(zero, open_coded)
    for file in ("trained.pt", "finetuned.pt"):
        assert _same(_saved(zero, file), _saved(plain, file))
    slow = _train(replace(_fields(plain, ema=0.999), run_dir=tmp_path / "slow"), open_coded)
    assert slow.sweep_before[0].loss != result.sweep_before[0].loss

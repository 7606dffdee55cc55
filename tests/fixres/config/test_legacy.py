"""Files with the former names, literally as commit 471ecb3 wrote them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fixres.config.legacy import renamed
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import FinetuneConfig, Recipe
from fixres.experiment.report import read_report
from fixres.experiment.results import VariantResult
from fixres.experiment.resume import check_resumable, header, upgraded
from fixres.pipelines.spec import InputError

_RECIPE = """
name: old
seed: 3
resume: 'no'
survival: {minutes: 2.0, steps: 4, keep: 2, bad_losses: 20, stall_seconds: 1800.0}
sweep: [48]
optim: {lr: 0.4, batch_size: 8, per_process: null, accumulate: null, momentum: 0.9, weight_decay: 5.0e-05,
  decay_all: null, warmup_epochs: 1.0, steps: null, label_smoothing: 0.1, ema: null}
augment: {colour: 0.4, pca: 0.1, mixup: 0.0, cutmix: 0.0, cutmix_prob: 0.5}
distill: null
arms:
  baseline: null
  fast:
    epochs: 2
    resolution: {points: [[0, 32]], ramp: step, multiple: 16}
    test_res: 48
    fix: {epochs: 1, lr: 0.01, layers: classifier_bn, cache_memory: 2.0}
  large: null
  small: null
  progressive: null
"""
_MIXING = ("mixup", "cutmix", "cutmix_prob")
_EVAL = {"test_res": 48, "top1": 0.5, "top5": 1.0, "class_mean_top1": 0.5, "loss": 1.0, "num_images": 9,
         "images_per_second": 3.0}  # fmt: skip
_EPOCH = {"loss": 1.5, "num_images": 40, "seconds": 2.0, "wait_seconds": 0.5, "resolution": 32}
_RESULT = {
    "name": "fast", "train_res": 32, "train_res_by_epoch": [32, 32], "test_res": 48, "epochs": 2,
    "top1_before_fix": 0.4, "top1": 0.5, "top5": 1.0, "class_mean_top1": 0.5, "train_seconds": 4.0,
    "fix_seconds": 1.0, "evaluate_seconds": 0.5, "program_seconds": 6.0, "paused_seconds": 1.0,
    "images_per_second": 20.0, "data_wait_share": 0.25, "num_bad_samples": 0, "sweep_before": [_EVAL],
    "sweep_after": [_EVAL], "curve": [{"epoch": 2, "train_seconds": 4.0, "top1": 0.4, "loss": 1.5}],
    "fix_epochs": [_EPOCH],
}  # fmt: skip


def _checkpoint(recipe: dict[str, Any], arm: dict[str, Any]) -> dict[str, Any]:
    return {"format": "roc-fixres-state", "version": 1, "recipe": recipe, "fingerprint": "f", "metrics_bytes": 12,
            "arms": {"fast": arm}}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(_RECIPE)
    return parse_recipe(["--config", str(tmp_path / "recipe.yaml")])


def _former_settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe of a training checkpoint of version 1: dotted names, variants that are left out as null."""
    former = {}
    for key, value in header(recipe, {})["recipe"].items():
        if key.startswith("augment.") and key.removeprefix("augment.") not in ("color", "pca", *_MIXING):
            continue  # settings that version 1 did not have
        key = key.replace("variants.", "arms.").replace(".finetune.", ".fix.")
        former[key.replace("augment.color", "augment.colour")] = value
    return former | {f"arms.{name}": None for name in ("baseline", "large", "small", "progressive")}


def test_a_recipe(recipe: Recipe) -> None:
    assert recipe.fault_tolerance.steps == 4 and recipe.augment is not None and recipe.augment.color == 0.4
    assert list(recipe.variants) == ["fast"] and recipe.variants["fast"].finetune == FinetuneConfig(epochs=1)


def test_a_training_checkpoint(recipe: Recipe) -> None:
    net = {"fix.weight": torch.zeros(2)}  # names inside networks are not changed
    arm = {"net": net, "stepper": None, "ending": {"before": [_EVAL], "fix_epochs": [_EPOCH]},
           "clock": {"train": 4.0, "fix": 1.0}}  # fmt: skip
    checkpoint = upgraded(_checkpoint(_former_settings(recipe), arm))
    check_resumable(checkpoint, recipe, {"fingerprint": "f"}, Path("run"))
    assert checkpoint["version"] == 2 and checkpoint["metrics_bytes"] == 12
    fast = checkpoint["variants"]["fast"]
    assert fast["net"] is net and fast["clock"] == {"train": 4.0, "finetune": 1.0}
    assert fast["ending"] == {"before": [_EVAL], "finetune_epochs": [_EPOCH]}
    assert upgraded(checkpoint) is checkpoint
    other = _former_settings(recipe) | {"arms.small.epochs": 3}
    with pytest.raises(InputError, match=r"the run to resume has variants\.small\.epochs=3, this call has None"):
        check_resumable(upgraded(_checkpoint(other, arm)), recipe, {"fingerprint": "f"}, Path("run"))


def test_the_result_of_a_finished_variant(recipe: Recipe) -> None:
    checkpoint = upgraded(_checkpoint(_former_settings(recipe), {"result": _RESULT}))
    result = VariantResult.from_dict(checkpoint["variants"]["fast"]["result"])
    assert (result.top1_before_finetune, result.finetune_seconds, result.wall_seconds) == (0.4, 1.0, 6.0)
    assert without_new(asdict(result)) == renamed(_RESULT)


def without_new(values: Any) -> Any:
    """Without the keys that only today's program has; old results have None there."""
    if isinstance(values, list):
        return [without_new(one) for one in values]
    new = ("num_outputs", "top1_all_outputs", "top5_all_outputs")
    assert not isinstance(values, dict) or {values.get(key) for key in new} == {None}
    return (
        {key: without_new(one) for key, one in values.items() if key not in new} if isinstance(values, dict) else values
    )


def test_a_report(tmp_path: Path) -> None:
    savings = {"train_clock_ratio": 0.4, "program_clock_ratio": 0.5, "top1_gain_of_fix": 0.1}
    content = {"arms": [_RESULT], "savings": savings, "recipe": yaml.safe_load(_RECIPE)}
    (tmp_path / "report.json").write_text(json.dumps(content))
    report = read_report(tmp_path)
    assert report["variants"][0]["wall_seconds"] == 6.0 and "fault_tolerance" in report["recipe"]
    assert report["savings"] == {"train_time_ratio": 0.4, "wall_time_ratio": 0.5, "top1_gain_of_finetune": 0.1}

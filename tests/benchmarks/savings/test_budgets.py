"""Savings over lengths of training: stretched schedules, differences at equal time by hand, table and page."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from benchmarks.savings.budgets import BudgetsOptions, scaled
from benchmarks.savings.budgets_report import at_equal_time, budgets_table, page, points, references, text, verdict
from fixres.config.parsing import RECIPES, parse_recipe
from fixres.pipelines.spec import InputError
from tests.benchmarks.savings.savings_record import record, run, variant


def at_budget(seed: int, epochs: int, large: float, small: float) -> dict:
    """One training: large takes 10 s an epoch, small 2 s and 4 s of fine-tuning; tested larger both lose."""
    made = run(seed, large, small)
    made["variants"] = [
        variant("large", [128] * epochs, 128, 10.0 * epochs, large + 0.03),
        variant("small", [64] * epochs, 96, 2.0 * epochs, small - 0.01, finetune=4.0),
    ]
    return made


# top1 at the variant's test size: large is given as is, small + FixRes too.
RUNS = [at_budget(seed, epochs, large + seed / 100, small + seed / 100)
        for seed in (0, 1, 2) for epochs, large, small in ((4, 0.50, 0.48), (16, 0.70, 0.60))]  # fmt: skip
MADE = record(*RUNS) | {"kind": "savings_budgets"}


def test_schedules_are_stretched_and_the_fine_tuning_is_not() -> None:
    recipe = parse_recipe(["--config", str(RECIPES / "savings_budgets.yaml")])
    expected = {4: (4, 3, 1.0), 8: (8, 6, 2.0), 10: (10, 8, 2.0), 30: (30, 23, 2.0)}
    for epochs, (length, change, warmup) in expected.items():
        found = scaled(recipe, epochs, seed=7)
        found.check_schedules()
        assert [one.epochs for one in found.variants.values()] == [length] * 3
        assert found.variants["progressive"].resolution.points == [(0, 48), (change, 72)]
        assert found.optim.warmup_epochs == warmup and found.seed == 7 and found.eval_every == 0
        assert found.variants["small"].finetune.epochs == 4
        assert found.folder == recipe.folder / f"epochs-{epochs}" / "seed-7"


def test_times_are_in_epochs_of_the_reference_of_the_same_training() -> None:
    found = {(one.epochs, one.title): one for one in points(MADE)}
    assert found[4, "large"].times == [4.0] * 3 and found[16, "large"].times == [16.0] * 3
    assert found[4, "small"].times == pytest.approx([0.8] * 3)
    assert found[16, "small + FixRes"].times == pytest.approx([3.6] * 3)
    busy = copy.deepcopy(MADE)
    for one in busy["runs"][1]["variants"]:  # a busy machine during one training
        one["train_seconds"] *= 3
        one["finetune_seconds"] *= 3
    assert {(one.epochs, one.title): one.times for one in points(busy)} == {
        key: pytest.approx(one.times) for key, one in found.items()
    }


def test_at_equal_time_the_reference_is_interpolated_over_the_logarithm() -> None:
    found = points(MADE)
    against = references(found)
    assert [(one.epochs, one.title) for one in against] == [(4, "large"), (16, "large")]
    small = next(one for one in found if (one.epochs, one.title) == (16, "small + FixRes"))
    # 3.6 epochs of time are less than large's shortest, 4: compared with its 0.50.
    assert at_equal_time(small, against).mean == pytest.approx(0.10)
    slow = copy.deepcopy(MADE)
    for one in slow["runs"]:
        one["variants"][1]["finetune_seconds"] = 48.0
    found = points(slow)
    small = next(one for one in found if (one.epochs, one.title) == (16, "small + FixRes"))
    # (32 + 48) / 10 = 8 epochs of time: halfway between 4 and 16 on the logarithm, so against 0.60.
    assert at_equal_time(small, references(found)).mean == pytest.approx(0.0, abs=1e-12)


def test_a_reference_that_is_better_tested_larger_is_compared_with() -> None:
    better = copy.deepcopy(MADE)
    for one in better["runs"]:
        one["variants"][0]["sweep_before"]["160"] = one["variants"][0]["sweep_before"]["128"] + 0.02
    assert [one.title for one in references(points(better))] == ["large, tested larger"] * 2


def test_the_verdict_names_only_certain_differences() -> None:
    assert verdict(points(MADE)) == (
        "At equal time small + FixRes is more accurate with 16 epochs, less accurate with 4 epochs. Nothing was "
        "trained for more than 16 epochs."
    )
    spread = copy.deepcopy(MADE)
    for shift, one in zip((-0.2, 0.2, 0.0), spread["runs"][1::2], strict=True):
        one["variants"][1]["sweep_after"]["96"] += shift
    assert "not certainly different with 16 epochs" in verdict(points(spread))


def test_a_seed_without_all_budgets_does_not_count(tmp_path: Path) -> None:
    partial = MADE | {"runs": RUNS[:3], "partial": True}
    assert {len(one.evaluations) for one in points(partial)} == {1}
    assert "one seed, no interval" in budgets_table(partial)
    page(partial, tmp_path / "budgets.html")
    assert "Not finished: the page shows 3 trainings" in (tmp_path / "budgets.html").read_text()
    assert "No seed has all budgets" in text(MADE | {"runs": [RUNS[0], RUNS[3]]})


def test_table_and_page_show_the_same(tmp_path: Path) -> None:
    table = budgets_table(MADE)
    assert "| 16 | small + FixRes | 64 px | 96 px | 61.0 ± 1.0 | 3.6 ± 0.0 | -10.0 (-10.0 to -10.0) | +10.0 (" in table
    page(MADE, tmp_path / "budgets.html")
    assert "+10.0 (+10.0 to +10.0)" in (tmp_path / "budgets.html").read_text()


def test_budgets_must_differ_and_reach_the_change_of_resolution() -> None:
    for budgets in ([8], [8, 8], [2, 8]):
        with pytest.raises(InputError, match="must be different numbers from 4 on"):
            BudgetsOptions(budgets=budgets)

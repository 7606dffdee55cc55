"""The comparison of final evaluations on an artificial record, by hand; its tables and its page."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from benchmarks.docs.render import render
from benchmarks.savings.comparison import compare, evaluations_of, target_of
from benchmarks.savings.report import page, savings_table, text
from fixres.pipelines.spec import InputError
from tests.benchmarks.savings.savings_record import record, run, variant

THREE = record(run(1, 0.74, 0.73), run(2, 0.76, 0.75, factor=1.25), run(3, 0.75, 0.75))


def test_one_training_has_three_final_evaluations() -> None:
    own, larger, finetuned = evaluations_of(variant("small", [64, 64], 96, 24.0, 0.73, finetune=6.0), opening=3.0)
    assert [one.title for one in (own, larger, finetuned)] == ["small", "small, tested larger", "small + FixRes"]
    assert [one.test_res for one in (own, larger, finetuned)] == [64, 96, 96]
    assert [one.top1 for one in (own, larger, finetuned)] == pytest.approx([0.73, 0.72, 0.74])
    assert [one.total_seconds for one in (own, larger, finetuned)] == [24.0, 24.0, 30.0]
    # 3 s of opening and saving; one test takes 1 s at 64 px and 2 s at 96 px.
    assert [one.wall_seconds for one in (own, larger, finetuned)] == [24 + 3 + 1, 24 + 3 + 2, 30 + 3 + 2]


def test_a_variant_without_fine_tuning_is_also_tested_larger() -> None:
    found = evaluations_of(variant("large", [96, 128], 128, 90.0, 0.77), opening=3.0)
    assert [(one.title, one.test_res, one.trained) for one in found] == [
        ("large", 128, "96 to 128 px"),
        ("large, tested larger", 160, "96 to 128 px"),
    ]


def test_the_first_variant_does_not_pay_for_shared_work() -> None:
    one = run(1, 0.74, 0.73)
    before = compare(record(copy.deepcopy(one)))[0].spread("wall_seconds").mean
    one["variants"][0]["paused_seconds"] += 5.0  # loading libraries, which every variant uses
    assert compare(record(one))[0].spread("wall_seconds").mean == before == 96.0


def test_seconds_to_an_accuracy() -> None:
    own, larger, finetuned = evaluations_of(variant("small", [64, 64], 96, 24.0, 0.73, finetune=6.0), opening=3.0)
    # The curve is made at 96 px: 0.53 after 12 s, 0.72 after 24 s. At 64 px there is the test at the end only.
    assert [larger.seconds_to(target) for target in (0.5, 0.6, 0.72, 0.73)] == [12.0, 24.0, 24.0, None]
    assert [own.seconds_to(0.5), own.seconds_to(0.74)] == [24.0, None]
    assert [finetuned.seconds_to(0.5), finetuned.seconds_to(0.74), finetuned.seconds_to(0.75)] == [30.0, 30.0, None]


def test_differences_and_ratios_are_seed_by_seed() -> None:
    found = {one.first.title: one for one in compare(THREE)}
    assert list(found) == ["large", "large, tested larger", "small", "small, tested larger", "small + FixRes"]
    finetuned = found["small + FixRes"]
    assert finetuned.spread("top1").mean == pytest.approx((0.74 + 0.76 + 0.76) / 3)
    # 0.74 - 0.74, 0.76 - 0.76, 0.76 - 0.75
    assert finetuned.delta_top1().mean == pytest.approx(0.01 / 3) and finetuned.delta_top1().sd == pytest.approx(
        0.0057735, abs=1e-6
    )
    # 90 / 30, 90 / 37.5, 90 / 30
    assert finetuned.speedup().mean == pytest.approx(
        (3 * 2.4 * 3) ** (1 / 3)
    ) and finetuned.speedup().sd == pytest.approx(0.34641, abs=1e-5)
    # 10 s paused less 7 s of tests: (90 + 3 + 3) / (30 + 3 + 2), ... / (37.5 + 3 + 2), ...
    assert finetuned.speedup("wall_seconds").mean == pytest.approx((96 / 35 * 96 / 42.5 * 96 / 35) ** (1 / 3))


@pytest.mark.parametrize(
    ("small", "expected"),
    [
        ((0.73, 0.75, 0.75), "no loss beyond the spread"),  # differences 0, 0, +1
        ((0.72, 0.75, 0.74), "no loss beyond the spread"),  # -1, 0, 0: mean -0.33, deviation 0.58
        ((0.72, 0.74, 0.73), ": a loss beyond the spread"),  # -1, -1, -1
        ((0.70, 0.73, 0.74), ": a loss beyond the spread"),  # -3, -2, 0: mean -1.67, deviation 1.53
        ((0.69, 0.73, 0.76), ": a loss beyond the spread"),  # -4, -2, +2: deviation 3.1, but large's own is 1.0
    ],
)
def test_what_counts_as_a_loss(small: tuple[float, ...], expected: str) -> None:
    made = record(*(run(k, large, one) for k, (large, one) in enumerate(zip((0.74, 0.76, 0.75), small, strict=True))))
    assert expected in compare(made)[-1].verdict()


def test_one_seed_has_no_spread() -> None:
    verdict = compare(record(run(1, 0.74, 0.70)))[-1].verdict()
    assert verdict.endswith("one seed, so its spread is unknown") and "interval" not in verdict


def test_the_target_is_what_large_reaches_in_every_seed() -> None:
    assert target_of(THREE) == 0.74
    assert target_of(THREE | {"target": 0.755}) == 0.755
    found = compare(THREE)
    assert found[0].reached(0.74) == "90 ± 0"
    assert found[-1].reached(0.755) == "34 ± 5 (2 of 3 seeds)"
    assert found[-1].reached(0.99) == "never"


def test_the_first_of_the_references_is_compared_with() -> None:
    reversed_record = copy.deepcopy(THREE)
    for one in reversed_record["runs"]:
        one["variants"].reverse()
    assert compare(reversed_record)[0].first.title == "large"
    for one in reversed_record["runs"]:
        one["variants"][1]["name"] = "huge"
    with pytest.raises(InputError, match="small, huge: none is called large or baseline, so there is no reference"):
        compare(reversed_record)


def test_the_table_for_documents() -> None:
    lines = savings_table(THREE).splitlines()
    assert lines[0].startswith("|  | trained at | tested at | top-1, %") and lines[0].endswith(
        "| wall-clock speed-up |"
    )
    assert lines[2] == ("| large | 128 px | 128 px | 75.0 ± 1.0 | 0 | 90 ± 0 | 1 | 96 ± 0 | 1 |")
    assert lines[6] == (
        "| small + FixRes | 64 px | 96 px | 75.3 ± 1.2 | +0.3 ± 0.6 | 32 ± 4 | 2.78 ± 0.35 | 38 ± 4 | 2.57 ± 0.28 |"
    )
    assert "* small + FixRes: training speed-up 2.78, fine-tuning included (95 % interval 2.02 to 3.84)" in lines[8]
    assert lines[-1].startswith("3 seeds, mean ± standard deviation")


def test_a_record_fills_its_block(tmp_path: Path) -> None:
    document = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    assert render(document, tmp_path) == document  # without a record nothing changes and nothing fails
    assert "<!-- savings:begin -->" in document
    (tmp_path / "savings.json").write_text(json.dumps(THREE))
    filled = render(document, tmp_path)
    assert (
        savings_table(THREE) in filled and "Measured on 2 cores of made, no GPU, torch 9.9, commit abcdef0." in filled
    )
    assert render(filled, tmp_path) == filled


def test_terminal_and_page_show_the_same(tmp_path: Path) -> None:
    page(THREE, tmp_path / "savings.html")
    html, terminal = (tmp_path / "savings.html").read_text(), text(THREE)
    for words in ("2.78 ± 0.35", "+0.3 ± 0.6", "32 ± 4"):
        assert words in terminal and words in html
    assert html.count("data:image/png;base64,") == 4
    assert not re.search(r"""(src|href)=["'](?!data:)""", html) and "{{" not in html and "{%" not in html
    assert "projected" not in html
    assert "Artificial." in html


def test_the_page_marks_a_projection_and_escapes_notes(tmp_path: Path) -> None:
    projection = {
        "formula": "epoch(r) = images / speed", "conditions": ["Projected, not measured: a network."],
        "images_per_second": {"step": {"128": 10.0}}, "hours": {"large": 2.0},
        "verdicts": ["0.4 of the time (projected)"],
        "runs": {"large": [{"name": "train", "epochs": 3, "resolution": 128, "seconds": 7200.0, "limit": "network"}]},
    }  # fmt: skip
    page(THREE | {"projection": projection, "note": "<script>"}, tmp_path / "savings.html")
    html = (tmp_path / "savings.html").read_text()
    assert "ImageNet: projected, not measured" in html and "epoch(r) = images / speed" in html
    assert "<script>" not in html and "&lt;script&gt;" in html

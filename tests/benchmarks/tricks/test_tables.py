"""The tables and the page of tricks on an artificial record, by hand; the settings of the variants."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.render import render
from benchmarks.tricks.report import leave_one_out_rows, page, stack_rows, text, tricks_table
from benchmarks.tricks.variants import TRICKS, chosen, distillation, variant_of, variants
from fixres.config.parsing import as_plain, parse_recipe
from fixres.models.factory import create_model
from fixres.pipelines.spec import InputError
from fixres.training.schedule import resolution_at, training_lr

ROOT = Path(__file__).parents[3]
NAMES = [trick.name for trick in TRICKS]


def _training(seed: int, tricks: list[str], top1: float, step: float, finetune: float = 0.0) -> dict[str, Any]:
    return {
        "variant": tricks[-1] if tricks else "baseline", "tricks": tricks, "seed": seed, "top1": top1,
        "class_mean_top1": top1, "top1_before_finetune": top1, "train_res_by_epoch": [64, 64],
        "test_res": 96 if finetune else 64,
        "train_seconds": 20.0, "finetune_seconds": finetune, "wall_seconds": 30.0, "data_wait_share": 0.0, "sweep": {},
        "seconds_per_step": step, "peak_resident_bytes": 900_000_000, "peak_gpu_bytes": None, "commit": "abcdef0123",
        "written": "2026-01-01",
    }  # fmt: skip


def _record(*trainings: dict[str, Any]) -> dict[str, Any]:
    environment = {"cpu": "made", "num_cores": 2, "gpu": None, "commit": "abcdef0123", "versions": {"torch": "9.9"}}
    tricks = [{"name": name, "title": name.upper(), "source": "made"} for name in ("a", "b", "c")]
    return {
        "version": 3, "kind": "tricks", "name": "tricks", "note": "Made <up>.", "partial": False, "tricks": tricks,
        "train_res": 64, "data": {"engine": "torch", "num_train": 200, "num_val": 100}, "settings": {},
        "recipe": {"model": {"name": "resnet14t"}, "optim": {"batch_size": 64}}, "environment": environment,
        "trainings": list(trainings),
    }  # fmt: skip


WHOLE = _record(
    *(_training(s, [], 0.50 + s / 100, 0.100) for s in (1, 2)),
    *(_training(s, ["a"], 0.60 + 2 * s / 100, 0.150) for s in (2, 1)),  # seeds in another order
    *(_training(s, ["a", "b"], 0.60, 0.150) for s in (1, 2)),
    *(_training(s, ["a", "b", "c"], 0.70, 0.300, finetune=5.0) for s in (1, 2)),
    _training(1, ["b", "c"], 0.65, 0.200),
    _training(1, ["a", "c"], 0.72, 0.300),
)


def test_what_each_adds_to_those_before_it() -> None:
    rows = {row[0]: row[1:] for row in stack_rows(WHOLE)}
    assert list(rows) == ["baseline", "+ A", "+ B", "+ C"]
    assert rows["baseline"] == ["section 2.1", "64 px", "51.5 ± 0.7", "", "", "20 ± 0", "100 ± 0", "1.00 ± 0.00",
                                "900 ± 0"]  # fmt: skip
    # Seed by seed: 62 - 51 = 11, 64 - 52 = 12; t of one degree of freedom, 12.706, times 0.5.
    assert rows["+ A"][2:5] == ["63.0 ± 1.4", "+11.5 ± 0.7", "+5.1 to +17.9"] and rows["+ A"][7] == "1.50 ± 0.00"
    assert rows["+ B"][3] == "-3.0 ± 1.4"
    assert rows["+ C"][1] == "96 px" and rows["+ C"][3] == "+10.0 ± 0.0" and rows["+ C"][5] == "25 ± 0"


def test_what_each_adds_to_all_others() -> None:
    rows = {row[0]: row[1:] for row in leave_one_out_rows(WHOLE)}
    assert list(rows) == ["nothing", "A", "B", "C"]
    assert rows["A"] == ["65.0", "+5.0", "one seed, no interval", "1.50"]
    assert rows["B"][1] == "-2.0"  # better without it
    assert rows["C"][1] == "+10.0 ± 0.0"  # all but the last is the stack up to it


def test_groups_without_trainings_are_left_out() -> None:
    few = _record(
        _training(1, [], 0.5, 0.1), _training(1, ["a", "b"], 0.6, 0.1), _training(2, ["a", "b", "c"], 0.7, 0.1)
    )
    assert [(row[0], row[4]) for row in stack_rows(few)] == [("baseline", ""), ("+ B", ""), ("+ C", "")]
    assert leave_one_out_rows(_record(_training(1, [], 0.5, 0.1))) == []
    only = _record(_training(1, ["b", "c"], 0.5, 0.1))
    assert stack_rows(only) == [] and text(only).startswith("1 seed;")


def test_a_record_fills_the_block_of_the_document(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "tricks.md").read_text()
    (tmp_path / "tricks.json").write_text(json.dumps(WHOLE))
    filled = render(document, tmp_path, "../")
    assert tricks_table(WHOLE) in filled and "commit abcdef0. Made <up>." in filled
    assert render(filled, tmp_path, "../") == filled


def test_terminal_and_page_show_the_same(tmp_path: Path) -> None:
    page(WHOLE, tmp_path / "tricks.html")
    html, terminal = (tmp_path / "tricks.html").read_text(), text(WHOLE)
    for words in ("+11.5 ± 0.7", "63.0 ± 1.4", "one seed, no interval", "batches of 64"):
        assert words in terminal and words in html
    assert html.count("data:image/png;base64,") == 3 and "Made &lt;up&gt;." in html
    assert not re.search(r"""(src|href)=["'](?!data:)""", html) and "{{" not in html


def test_each_trick_changes_its_own_settings_and_all_of_them_are_off_in_the_baseline() -> None:
    baseline = parse_recipe(["--config", "tricks/ablation"])
    plain = as_plain(baseline)
    changed = {
        "colors": {"augment"}, "efficient": {"optim", "model"}, "resnet-d": {"model"}, "cosine": {"optim"},
        "smoothing": {"optim"}, "mixup": {"augment"}, "cutmix": {"augment"}, "ema": {"optim"}, "blurpool": {"model"},
        "progressive": {"variants"}, "fixres": {"variants"},
    }  # fmt: skip
    for trick in TRICKS:
        other = as_plain(trick.on(baseline))
        assert {key for key in plain if plain[key] != other[key]} == changed[trick.name]
    assert baseline.augment is None


def test_the_learning_rate_steps_are_those_of_the_paper() -> None:
    optim = parse_recipe(["--config", "tricks/ablation"]).optim
    for share, power in ((0.0, 0), (0.24, 0), (0.25, 1), (0.49, 1), (0.5, 2), (0.75, 3), (0.99, 3)):
        assert training_lr(8 * share, 8, optim) == pytest.approx(0.1 * 0.1**power)


def test_all_tricks_together() -> None:
    (everything,) = (one for one in variants(parse_recipe(["--config", "tricks/ablation"])) if one.name == "fixres")
    recipe = everything.recipe
    variant = variant_of(recipe)
    assert [resolution_at(epoch, variant.resolution) for epoch in range(8)] == [48] * 4 + [64] * 4
    assert variant.test_res == 96 and variant.finetune is not None
    assert (recipe.optim.steps, recipe.optim.decay_all, recipe.optim.warmup_epochs) == (None, None, 1)
    assert [training_lr(epoch, 8, recipe.optim) for epoch in (0, 1, 4.5, 8)] == pytest.approx([0, 0.1, 0.05, 0])
    net = create_model(recipe.model, 3)
    assert len(net.conv1) == 7 and net.conv1[-1].out_channels == 64  # three convolutions instead of one
    assert any("BlurPool" in type(module).__name__ for module in net.modules())
    baseline = create_model(parse_recipe(["--config", "tricks/ablation"]).model, 3)
    assert baseline.conv1.kernel_size == (7, 7) and baseline.conv1.out_channels == 64
    assert (baseline.layer1[0].bn3.weight == 1).all() and (net.layer1[0].bn3.weight == 0).all()


def test_the_trainings_of_a_command(tmp_path: Path) -> None:
    recipe = parse_recipe(["--config", "tricks/ablation"])
    found = variants(recipe, TRICKS, [distillation(tmp_path / "t.pt")])
    tricks = {one.name: one.tricks for one in found}
    assert list(tricks)[:3] == ["baseline", "colors", "efficient"] and len(found) == len(set(tricks.values())) == 23
    assert tricks["distillation"] == (*NAMES, "distillation") and tricks["fixres"] == tuple(NAMES)
    assert tricks["without-cosine"] == tuple(name for name in NAMES if name != "cosine")
    assert "without-fixres" not in tricks and "distillation" not in tricks["without-efficient"]
    assert [one.name for one in chosen(found, ["without-cosine", "baseline"])] == ["baseline", "without-cosine"]
    assert [len(chosen(found, [word])) for word in ("all", "stack", "leave-one-out")] == [23, 13, 10]
    with pytest.raises(InputError, match="--variant tea is unknown; there are all, stack, leave-one-out, baseline"):
        chosen(found, ["cosine", "tea"])
    with pytest.raises(InputError, match="trains one variant, called baseline"):
        variants(parse_recipe(["--config", "savings"]))

"""Recipes: files, overrides, and one line for every mistake."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fixres.config.augment import AugmentConfig, DistillConfig
from fixres.config.parsing import RECIPES, parse_recipe, recipe_file, save_recipe
from fixres.config.recipe import FinetuneConfig, StepDecay, VariantConfig
from fixres.pipelines.spec import InputError
from fixres.training.schedule import resolution_at, training_lr


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_parses_and_reloads_after_saving(path: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(["--config", path.stem])
    recipe.check_schedules()
    save_recipe(recipe, tmp_path / "resolved.yaml")
    assert parse_recipe(["--config", str(tmp_path / "resolved.yaml")]) == recipe


@pytest.mark.parametrize("path", sorted((RECIPES / "tricks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_tricks_parses_and_names_who_runs_it(path: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(["--config", f"tricks/{path.stem}"])
    recipe.check_schedules()
    assert recipe.name == path.stem
    assert ("python -m benchmarks.tricks" if path.stem == "ablation" else "NOT RUN BY US") in path.read_text()
    save_recipe(recipe, tmp_path / "resolved.yaml")
    assert parse_recipe(["--config", str(tmp_path / "resolved.yaml")]) == recipe


def test_the_ladder_has_its_rungs() -> None:
    for epochs in (16, 18, 24, 32, 40, 88):
        variant = parse_recipe(["--config", f"tricks/imagenet_rn50_{epochs}"]).variants["fast"]
        sizes = [resolution_at(epoch, variant.resolution) for epoch in range(epochs)]
        assert variant.epochs == epochs and variant.finetune is not None
        assert sizes == sorted(sizes) and set(sizes) == {128, 160, 192}


def test_the_papers_recipes_have_the_papers_settings() -> None:
    """Section 2.1, and section 5 with 200 epochs of mixup."""
    baseline, tricks = (parse_recipe(["--config", f"tricks/paper_{name}"]) for name in ("baseline", "tricks"))
    rates = [training_lr(epoch, 120, baseline.optim) for epoch in (0, 29.9, 30, 60, 90)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])
    assert baseline.augment == AugmentConfig(color=0.4, pca=0.1) and baseline.model.init == "xavier"
    assert tricks.augment == AugmentConfig(color=0.4, pca=0.1, mixup=0.2) and tricks.optim.label_smoothing == 0.1
    assert [recipe.variants["baseline"].epochs for recipe in (baseline, tricks)] == [120, 200]


def test_tricks_are_off_by_default_and_options_reach_them() -> None:
    plain = parse_recipe([])
    optim = plain.optim
    assert (plain.augment, plain.distill, plain.model.init) == (None, None, None)
    assert (optim.steps, optim.ema, optim.accumulate, optim.decay_all) == (None, None, None, None)
    arguments = "--augment.mixup 0.2 --distill.teacher t.pt --optim.steps.milestones [3,6] --optim.ema 0.9"
    recipe = parse_recipe(f"{arguments} --optim.accumulate 4 --optim.decay_all true --model.init xavier".split())
    assert recipe.augment == AugmentConfig(mixup=0.2) and recipe.distill == DistillConfig("t.pt", temperature=20.0)
    assert recipe.optim.steps == StepDecay([3, 6], 0.1) and recipe.optim.micro_batch_size == 8


def test_the_demo_is_the_default_and_overrides_reach_deep() -> None:
    recipe = parse_recipe(["--optim.lr", "0.25", "--variants.fast.epochs=3", "--engine", "torch"])
    assert recipe.name == "demo"
    assert recipe.optim.lr == 0.25
    assert recipe.variants["fast"].epochs == 3
    assert recipe.data.engine == "torch"


def test_null_leaves_a_variant_out(tmp_path: Path) -> None:
    assert list(parse_recipe(["--variants.baseline", "null"]).variants) == ["fast"]
    (tmp_path / "own.yaml").write_text("variants: {fast: null, absent: null}")
    assert list(parse_recipe(["--config", "demo", f"--config={tmp_path / 'own.yaml'}"]).variants) == ["baseline"]


def test_variants_have_any_name_and_files_and_options_reach_into_them(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("variants: {small-64: {epochs: 3, finetune: {lr: 0.5}}, Big_2: {test_res: 96}}")
    recipe = parse_recipe(["--config", str(path), "--variants.small-64.test_res", "96", "--variants.Big_2.epochs=2"])
    small, big = recipe.variants["small-64"], recipe.variants["Big_2"]
    assert (small.epochs, small.test_res, small.finetune) == (3, 96, FinetuneConfig(lr=0.5))
    assert (big.epochs, big.test_res, big.finetune) == (2, 96, None)
    added = parse_recipe(
        ["--config", str(path), "--variants.new", "{epochs: 1}", "--variants.new.finetune.epochs", "4"]
    )
    assert list(added.variants) == ["small-64", "Big_2", "new"]
    assert added.variants["new"].finetune == FinetuneConfig(epochs=4)
    later = tmp_path / "later.yaml"
    later.write_text("variants: {Big_2: {finetune: {}}}\nmodel: {kwargs: {channels: [8]}}")
    merged = parse_recipe(["--config", str(path), "--config", str(later), "--model.kwargs.drop_rate", "1e-1"])
    assert merged.variants["Big_2"] == replace(recipe.variants["Big_2"], epochs=16, finetune=FinetuneConfig())
    assert merged.model.kwargs == {"channels": [8], "drop_rate": 0.1}


def test_an_option_for_a_group_is_merged_and_one_for_arguments_of_timm_replaces_them() -> None:
    demo = parse_recipe([])
    recipe = parse_recipe(["--optim", "{lr: 0.5}", "--variants.fast", "{epochs: 3}", "--model.kwargs", "{}"])
    assert recipe.optim == replace(demo.optim, lr=0.5) and recipe.model.kwargs == {}
    assert recipe.variants["fast"] == replace(demo.variants["fast"], epochs=3)


def test_an_alias_gives_each_variant_settings_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("variants: {a: &a {epochs: 3}, b: *a, c: {<<: *a, test_res: 64}}")
    variants = parse_recipe(["--config", str(tmp_path / "own.yaml"), "--variants.a.epochs", "5"]).variants
    assert [variant.epochs for variant in variants.values()] == [5, 3, 3] and variants["c"].test_res == 64


def test_a_recipe_with_the_former_names_is_read(tmp_path: Path) -> None:
    text = "survival: {steps: 3}\naugment: {colour: 0.4}\narms: {fast: {epochs: 3, fix: {lr: 0.5}}, baseline: null}"
    (tmp_path / "old.yaml").write_text(text)
    recipe = parse_recipe(["--config", str(tmp_path / "old.yaml")])
    assert recipe.fault_tolerance.steps == 3 and recipe.augment == AugmentConfig(color=0.4)
    assert recipe.variants == {"fast": VariantConfig(3, finetune=FinetuneConfig(lr=0.5))}


def test_options_are_text_where_the_setting_is_text() -> None:
    recipe = parse_recipe(["--name", "5", "--data", "1e3", "--output", "null", "--compile", "no", "--device=cpu"])
    assert (recipe.name, recipe.data.path, recipe.run_dir, recipe.compile) == ("5", "1e3", None, "no")
    assert parse_recipe(["--output", "007"]).run_dir == Path("007")
    assert parse_recipe(["--data", "caf\udce9"]).data.path == "caf\udce9"  # a file name that is not UTF-8


def test_dates_are_text_and_exponents_are_numbers(tmp_path: Path) -> None:
    text = "name: 2024-01-01\noptim: {lr: 1e-3}\nmodel: {kwargs: {drop_rate: 1e-1}}\nvariants: {a: {}}"
    (tmp_path / "own.yaml").write_text(text)
    recipe = parse_recipe(["--config", str(tmp_path / "own.yaml")])
    assert (recipe.name, recipe.optim.lr, recipe.model.kwargs) == ("2024-01-01", 1e-3, {"drop_rate": 0.1})


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_recipe(["--help"])
    text = capsys.readouterr().out
    for line in (
        "--optim.lr X",
        "--variants.NAME.finetune.epochs N",
        "--resume no|auto",
        "--augment.mixup",
        "--sweep N,...",
        "--train-crop.scale X,X",
        "--variants.NAME.resolution.points [[...], ...]",
        "--data TEXT",
    ):
        assert line in text, line
    assert "See docs/reliability.md" in text and "(default: auto)" in text and "tricks/paper_twin" in text


def test_the_sweep_contains_every_test_resolution() -> None:
    recipe = parse_recipe(["--sweep", "[64]", "--variants.fast.test_res", "144", "--variants.baseline.test_res", "128"])
    assert recipe.sweep_resolutions() == [64, 128, 144]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.lrr", "3"], r"^unknown option --optim.lrr, did you mean --optim.lr\? see --help$"),
        (["--conf", "recipe.yaml"], r"^unknown option --conf, did you mean --config\? see --help$"),
        (["demo"], "^demo: unexpected, options begin with --; see --help$"),
        (["--sweep", "96", "112"], "^112: unexpected, .*a list after --sweep is written with commas"),
        (["--data.path", "x"], r"^unknown option --data.path, did you mean --data\?"),
        (["--model.name", "x"], r"^unknown option --model.name, did you mean --model\?"),
        (["--run_dir", "x"], r"^unknown option --run-dir, did you mean --output\?"),
        (["--lr", "3"], r"^unknown option --lr, did you mean --optim.lr\?"),
        (["--arms.fast.fix.lr", "3"], r"did you mean --variants.fast.finetune.lr\?"),
        (["--variant", "fats"], "^--variant fats: the recipe demo does not have this variant; it has baseline, fast$"),
        (["--seed"], "^--seed needs a value"),
        (["--seed", "--optim.lr"], "^--seed needs a value"),
        (["--optim.lr", "fast"], "^optim.lr=fast must be a number"),
        (["--variants.fast.finetune.lr", "x"], "^variants.fast.finetune.lr=x must be a number"),
        (
            ["--variants.fast.finetune.layers", "head"],
            "^variants.fast.finetune.layers=head must be 'classifier', 'classifier_bn'",
        ),
        (["--train_crop.scale", "3"], r"^train_crop.scale=\[3\] needs more values; see --help"),
        (["--optim", "photos"], "^optim=photos: optim is a group of settings, use for example optim.lr$"),
        (["--optim.lr.x", "1"], r"^unknown option --optim.lr.x, did you mean --optim.lr\?"),
        (["--optim.lr", "true"], "^optim.lr=true must be a number"),
        (["--compile", "maybe"], "^compile=maybe must be 'auto', 'yes' or 'no'"),
        (["--variants.fsat.epochs", "3"], r"^variants.fsat: .*; did you mean fast\? It has baseline, fast$"),
        (["--variants.fsat", "null"], r"^variants.fsat: .*; did you mean fast\?"),
        (["--variants.up/there", "{}"], "variants: 'up/there' cannot name a folder of the run"),
        (["--variants.states", "{}"], "variants: 'states' cannot name a folder"),
        (["--variants.fast.epochs", "0"], "^variants.fast: epochs=0 must be above 0"),
        (["--variants.new", "{epochs: 0}"], "^variants.new: epochs=0 must be above 0"),
        (["--optim", "{lr: -1}"], "^optim.lr=-1.0 must be above 0"),
        (["--seed", "1.5"], "^seed=1.5 must be a whole number; see --help"),
        (["--variants.fast.finetune.lr", "0"], "^variants.fast.finetune.lr=0.0 must be above 0"),
        (["--arms.fast.epochs", "3"], r"^unknown option --arms.fast.epochs, did you mean --variants.fast.epochs\?"),
        (["--sweep", "[64, x]"], r"^sweep\[1\]=x must be a whole number"),
        (["--variants.fast.resolution.points", "0:64"], r"points\[0\]=0:64 must be a list such as \[0,128\]; see"),
        (["--config", "/"], "a folder, not a recipe file"),
        (["--config", "fixresnet50"], "a recipe of another command"),
        (["--optim.lr", "-1"], "optim.lr=-1.0 must be above 0"),
        (["--config", "nowhere"], "--config nowhere: no such file, and no recipe of that name; there are .*demo"),
        (["--config=nowhere"], "no such file"),
        (["--seed", "-3"], "seed=-3"),
        (["--num-workers", "-1"], "num_workers=-1 must be from 0 to 1024"),
        (["--data.min_zoom", "0"], "min_zoom=0.0 must be above 0"),
        (["--eval_every", "-4"], "eval_every=-4 must be"),
        (["--name", "../up"], "it names a folder"),
        (["--eval_crop.crop_pct", "1.5"], "crop_pct=1.5"),
        (["--train_crop.scale", "[0.5, 0.2]"], "scale="),
        (["--sweep", "[3]"], "resolution=3 is not supported"),
        (["--variants.baseline", "null", "--variants.fast", "null"], "nothing to train"),
        (["--data.on_bad", "ignore"], "on_bad"),
        (["--optim.label_smoothing", "1"], "label_smoothing"),
        (["--augment.mixup", "-1"], "augment.mixup=-1"),
        (["--augment.mixupp", "1"], r"did you mean --augment.mixup\?"),
        (["--optim.accumulate", "5"], "optim.accumulate=5 must divide optim.batch_size=32"),
        (["--optim.steps.milestones", "[9, 3]"], "optim.steps.milestones"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lr: 1, rate: 3}", "rate"),
        ("variants: {fast: {finetune: {epoch: 3}}}", "unknown key variants.fast.finetune.epoch"),
        ("optim: [1", "line 1"),
        ("color: red", "color"),
    ],
)
def test_mistakes_in_a_file_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(["--config", str(tmp_path / "recipe.yaml")])
    assert "\n" not in str(caught.value)


def test_a_recipe_is_found_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parse_recipe(["--config", "tricks/paper_tricks"])
    assert parse_recipe(["--config", "paper_tricks"]) == parse_recipe(["--config=paper_tricks.yaml"]) == whole
    assert recipe_file("fixresnet50", RECIPES / "finetune") == RECIPES / "finetune" / "fixresnet50.yaml"
    for name in ("here/one", "there/one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("seed: 1")
    with pytest.raises(InputError, match="--config one: the name of several recipes; there are here/one, there/one"):
        recipe_file("one", tmp_path)
    assert recipe_file("there/one", tmp_path) == tmp_path / "there" / "one.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper_tricks").write_text("seed: 5")  # a file of that name goes before
    assert recipe_file("paper_tricks", RECIPES) == Path("paper_tricks")


_NO_NUMBERS = [
    "optim: {lr: .nan}",
    "optim: {lr: .inf}",
    "optim: {warmup_epochs: .nan}",
    "optim: {weight_decay: .nan}",
    "fault_tolerance: {stall_seconds: .nan}",
    "fault_tolerance: {stall_seconds: .inf}",
    "fault_tolerance: {minutes: .nan}",
    "data: {min_zoom: .nan}",
    "train_crop: {scale: [0.5, .nan]}",
    "model: {kwargs: {drop_rate: .nan}}",
    "augment: {mixup: .nan}",
    "variants: {fast: {finetune: {lr: .nan}}}",
    "variants: {fast: {finetune: {cache_memory: .nan}}}",
    "variants: {fast: {epochs: .nan}}",
    "variants: {fast: {resolution: {points: [[0, .nan]]}}}",
]


@pytest.mark.parametrize("text", _NO_NUMBERS)
def test_nan_and_infinity_are_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text if text.startswith("variants") else f"{text}\nvariants: {{fast: {{}}}}")
    with pytest.raises(InputError, match=r"\b(nan|inf)\b") as caught:
        parse_recipe(["--config", str(tmp_path / "recipe.yaml")])
    setting = text.translate(str.maketrans("{[:", "   ")).split()[1]
    assert setting in str(caught.value) and "\n" not in str(caught.value)


def test_infinity_where_it_has_a_meaning(tmp_path: Path) -> None:
    text = (
        "data: {min_zoom: .inf}\nfault_tolerance: {minutes: .inf}\nvariants: {fast: {finetune: {cache_memory: .inf}}}"
    )
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = parse_recipe(["--config", str(tmp_path / "recipe.yaml")])
    assert (
        recipe.data.min_zoom
        == recipe.fault_tolerance.minutes
        == recipe.variants["fast"].finetune.cache_memory
        == math.inf
    )


_UNTRUSTED = [
    "data: sub.yaml",
    "data: untrusted_module.Class",
    "data: {dali: untrusted_module.Class}",
    "data.dali: untrusted_module.Class",
    "data.class_path: untrusted_module.Class",
    "variants: {fast: untrusted_module.Class}",
    "variants: {fast.fix: untrusted_module.Class}",
    "variants: {fast: {finetune: sub.yaml}}",
    "optim: {steps: untrusted_module.Class}",
    "augment: {class_path: untrusted_module.Class}",
    "name: 2020-99-99\ndata: {class_path: untrusted_module.Class}",
    "model: {kwargs: &a {finetune: untrusted_module.Class}}\nvariants: {fast: *a}",
    "base: &a {data: untrusted_module.Class}\n<<: *a",
    "config: sub.yaml",
]


@pytest.mark.parametrize("text", _UNTRUSTED)
def test_an_untrusted_recipe_imports_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module leaves a mark when it is imported; the file of settings beside the recipe names it, too."""
    (tmp_path / "untrusted_module.py").write_text("import pathlib\npathlib.Path(__file__).with_name('mark').touch()")
    (tmp_path / "sub.yaml").write_text("class_path: untrusted_module.Class")
    (tmp_path / "recipe.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "untrusted_module", raising=False)
    for arguments in (["--config", "recipe.yaml"], ["--data", "sub.yaml", "--config=recipe.yaml"]):
        with pytest.raises(InputError) as caught:
            parse_recipe(arguments)
        assert not (tmp_path / "mark").exists() and "\n" not in str(caught.value)


def test_a_recipe_trains_the_variants_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("variants: {fast: {epochs: 3}}")
    assert list(parse_recipe(["--config", str(tmp_path / "own.yaml")]).variants) == ["fast"]
    (tmp_path / "none.yaml").write_text("seed: 3")
    with pytest.raises(InputError, match="variants: the recipe names none, or all are null"):
        parse_recipe(["--config", str(tmp_path / "none.yaml")])

"""The command lines of training, testing and fixing, from a folder of images to the report, and every mistake."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from fixres.cli.main import call as call_command
from fixres.pipelines.runtime.exit_codes import run
from tests.coded import coded_image, jpeg, write_coded_folder

_SIZES = [(60 + 3 * i, 90 - 2 * i) for i in range(16)]
_RECIPE = {
    "name": "tiny",
    "seed": 3,
    "eval_every": 1,
    "sweep": [32, 48],
    "data": {"engine": "torch", "num_workers": 0},
    "model": {"name": "resnet10t", "kwargs": {"channels": [8, 16, 16, 24], "stem_width": 8}},
    "optim": {"lr": 0.1, "batch_size": 4, "warmup_epochs": 0},
    "variants": {
        "baseline": {"epochs": 2, "resolution": {"points": [[0, 64]]}, "test_res": 64},
        "fast": {
            "epochs": 2,
            "resolution": {"points": [[0, 32], [1, 48]], "multiple": 16},
            "test_res": 64,
            "finetune": {"epochs": 1},
        },
    },
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and val/ of 16 small images in 2 classes."""
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, _SIZES)
    return tmp_path / "photos"


@pytest.fixture
def recipe(tmp_path: Path, photos: Path) -> Path:
    """A recipe on `photos` that takes seconds."""
    path = tmp_path / "recipe.yaml"
    data = {**_RECIPE["data"], "path": str(photos), "work_dir": str(tmp_path / "work")}
    path.write_text(yaml.safe_dump({**_RECIPE, "data": data, "run_dir": str(tmp_path / "run")}))
    return path


class Tool:
    """Calls a tool's main as its command line does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, name: str, *arguments: object) -> tuple[int, str, str]:
        """Exit code, stdout, and the last line of stderr without progress bars."""
        self._monkeypatch.setattr(sys, "argv", [f"fixres {name}", *map(str, arguments)])
        self._capsys.readouterr()
        code = 0
        try:
            run(lambda: call_command(name, sys.argv[1:]))
        except SystemExit as error:
            code = int(error.code or 0)
        output = self._capsys.readouterr()
        return code, output.out, re.split(r"[\r\n]", output.err.rstrip())[-1].strip()


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(monkeypatch, capsys)


def test_without_data_a_checkpoint_is_tested_on_the_test_images_of_its_training(
    tool: Tool, recipe: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (photos / "val").glob("*/*"):
        if place.name > "00008":
            place.unlink()
    num_test = len(list((photos / "val").glob("*/*")))
    folder = tmp_path / "stored"
    for split in ("train", "val"):
        assert tool("convert", photos / split, folder / f"{split}.beton", "--num-workers", 0)[0] == 0
    monkeypatch.chdir(tmp_path)
    for data in ("stored", "stored/train.beton"):  # relative paths are found from any folder
        call = ("--config", recipe, "--data", data, "--variant", "fast", "--output", tmp_path / "run2")
        assert tool("train", *call)[0] == 0
        monkeypatch.chdir(photos)
        checkpoint = tmp_path / "run2" / "fast" / "finetuned.pt"
        for command in (("evaluate",), ("extract", "--output", tmp_path / "features", "--overwrite"), ("activations",)):
            code, out, _ = tool(command[0], checkpoint, *command[1:])
            assert code == 0 and f"{num_test} images" in out, (command, out)
        monkeypatch.chdir(tmp_path)
    code, out, _ = tool("finetune", checkpoint, "--test-res", 80, "--finetune.epochs", 1, "--optim.batch-size", 4)
    assert code == 0 and "80 px: top1" in out
    assert f"{num_test} images" in tool("evaluate", checkpoint, "--data", folder / "val.beton")[1]
    folder.rename(tmp_path / "moved")
    code, _, line = tool("evaluate", checkpoint)
    assert code == 2 and re.search("stored.* does not exist.*--data", line), line


def test_from_images_to_the_report(tool: Tool, recipe: Path, photos: Path, tmp_path: Path) -> None:
    code, out, _ = tool("train", "--config", recipe)
    assert code == 0
    assert "fast compared with baseline" in out
    folder = tmp_path / "run"
    report = json.loads((folder / "report.json").read_text())
    baseline, fast = report["variants"]
    assert (baseline["name"], fast["name"]) == ("baseline", "fast")
    assert (baseline["train_res"], fast["train_res"], fast["train_res_by_epoch"]) == (64, 48, [32, 48])
    assert [point["test_res"] for point in fast["sweep_after"]] == [32, 48, 64]
    assert baseline["sweep_after"] == [] and baseline["finetune_seconds"] == 0 and fast["finetune_seconds"] > 0
    assert baseline["top1"] == baseline["top1_before_finetune"]
    assert fast["top1"] == fast["sweep_after"][-1]["top1"]
    assert all(
        variant["wall_seconds"] >= variant["train_seconds"] + variant["finetune_seconds"]
        for variant in report["variants"]
    )
    assert report["environment"]["versions"]["torch"]
    _check_savings(report)
    _check_page((folder / "report.html").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["resolution"] for line in lines if line["variant"] == "fast" and line["kind"] == "train"] == [32, 48]
    assert list((folder / "tensorboard").iterdir())
    _use_the_checkpoint(tool, folder / "fast" / "trained.pt", fast, photos, tmp_path)


def _check_savings(report: dict) -> None:
    baseline, fast = report["variants"]
    ratio = (fast["train_seconds"] + fast["finetune_seconds"]) / baseline["train_seconds"]
    assert report["savings"]["train_time_ratio"] == pytest.approx(ratio)
    assert report["savings"]["top1_gain"] == pytest.approx(fast["top1"] - baseline["top1"])


def _check_page(page: str) -> None:
    """Nothing is fetched from elsewhere, and every picture is inside."""
    assert page.count("data:image/png;base64,") == 8
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "{{" not in page and "{%" not in page


def _use_the_checkpoint(tool: Tool, checkpoint: Path, fast: dict, photos: Path, tmp_path: Path) -> None:
    data = ["--data", photos, "--engine", "torch", "--num-workers", 0, "--work-dir", tmp_path / "w"]
    code, out, _ = tool("evaluate", "--model", checkpoint, "--test_res", "[48,64]", *data)
    assert code == 0
    expected = [f"{point['test_res']} px: top1 {point['top1']:.2%}" for point in fast["sweep_before"][1:]]
    assert [line.split(",")[0] for line in out.splitlines()] == expected
    data += ["--optim.batch_size", 4]
    code, out, _ = tool("finetune", "--model", checkpoint, "--test_res", 80, "--finetune.epochs", 1, *data)
    assert code == 0 and "after it" in out
    code, _, line = tool("finetune", "--model", checkpoint, "--test_res", 80, *data)
    assert code == 2 and "trained_finetuned80.pt exists" in line
    code, out, _ = tool("evaluate", "--model", checkpoint.with_stem("trained_finetuned80"), *data[:-2])
    assert code == 0 and out.startswith("80 px")


def test_the_gpu_engine_trains_on_a_cpu(tool: Tool, recipe: Path, tmp_path: Path) -> None:
    """The whole run by DALI's CPU operators, with the resolution changing between epochs."""
    pytest.importorskip("nvidia.dali")
    code, out, _ = tool("train", "--config", recipe, "--engine", "roc-dali", "--data.dali.prefetch", 3)
    assert code == 0 and "fast compared with baseline" in out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["data"]["engine"] == "roc-dali"
    assert report["variants"][1]["train_res_by_epoch"] == [32, 48]
    assert "prefetch: 3" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_an_older_run_is_moved_aside(tool: Tool, recipe: Path, tmp_path: Path) -> None:
    overrides = ["--variants.baseline", "null", "--variants.fast.finetune", "null", "--sweep", "[32]"]
    assert tool("train", "--config", recipe, *overrides)[0] == 0
    first = (tmp_path / "run" / "report.json").read_bytes()
    assert tool("train", "--config", recipe, *overrides)[0] == 0
    assert (tmp_path / "run.1" / "report.json").read_bytes() == first
    assert (tmp_path / "run" / "report.json").read_bytes() != first


def test_a_variant_fine_tunes_from_the_cache(tool: Tool, recipe: Path, tmp_path: Path) -> None:
    """The same losses as without, and later epochs wait for no data."""
    finetuned = [
        "--variants.baseline",
        "null",
        "--sweep",
        "[32]",
        "--variants.fast.finetune.epochs",
        3,
        "--variants.fast.finetune.augmentation",
        "test",
        "--precision",
        "fp32",
        "--variants.fast.finetune.cache_dtype",
        "fp32",
        "--variants.fast.finetune.adapt",
        "batchnorm",
    ]
    variants = []
    for cache in ("auto", "no"):
        code, _, _ = tool("train", "--config", recipe, *finetuned, "--variants.fast.finetune.cache", cache)
        assert code == 0
        variants.append(json.loads((tmp_path / "run" / "report.json").read_text())["variants"][0])
    cached, plain = ([epoch["loss"] for epoch in variant["finetune_epochs"]] for variant in variants)
    assert cached == pytest.approx(plain, rel=1e-4) and len(cached) == 3
    assert [one["wait_seconds"] for one in variants[0]["finetune_epochs"][1:]] == [0, 0]


def _remove_class(photos: Path) -> None:
    for path in (photos / "val" / "class_01").iterdir():
        path.unlink()


def _corrupt(photos: Path) -> None:
    (photos / "train" / "class_00" / "00004.jpg").write_bytes(jpeg(coded_image(50, 50))[:300])


def _of_size(side: int) -> list[str]:
    """A network that takes images of one size only."""
    kwargs = {"img_size": side, "depth": 1, "embed_dim": 12, "num_heads": 3}
    return ["--model", "vit_tiny_patch16_224", "--model.kwargs", json.dumps(kwargs)]


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (None, ["--data", "/nowhere"], "--data /nowhere does not exist"),
        (_remove_class, [], "class_01"),
        (_corrupt, [], r"00004\.jpg.*(truncated|decode)"),
        (None, ["--engine", "turbo"], "turbo.*torch"),
        (None, ["--variants.fast.test_res", "4"], "resolution=4 is not supported"),
        (None, ["--optim.batch_size", "64"], "16 samples do not fill"),
        (
            None,
            ["--variants.fast.finetune.batch_size", "17"],
            "finetune.batch_size=17 is larger than the number of training images, 16",
        ),
        (
            None,
            ["--variants.fast.finetune.layers", "last_blocks", "--variants.fast.finetune.num_blocks", "99"],
            "finetune.num_blocks=99",
        ),
        (None, ["--variants.fast.finetune.cache_dir", "/nowhere"], "finetune.cache_dir=/nowhere is not a folder"),
        (
            None,
            ["--variants.fast.finetune.batch_size", "1", "--variants.fast.test_res", "32"],
            "BatchNorm cannot learn from 1 image at a time; raise finetune.batch_size",
        ),
        (
            None,
            ["--optim.batch_size", "32", "--optim.accumulate", "4"],
            "optim.batch_size=32 is larger than the number of training images",
        ),
        (None, ["--optim.warmup_epochs", ".nan"], "optim.warmup_epochs=nan must be a finite number"),
        (None, ["--model", "resnet999"], "not a timm model"),
        (None, ["--color", "red"], "unknown option --color, did you mean --augment.color"),
        (None, ["--device", "cuda:7"], "cuda"),
        (None, [*_of_size(32)], "VisionTransformer does not take 48 px"),
        (None, [*_of_size(64), "--variants.fast", "null"], "VisionTransformer does not take 32 px"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_no_report(
    spoil: object, arguments: list[str], message: str, tool: Tool, recipe: Path, photos: Path, tmp_path: Path
) -> None:
    if callable(spoil):
        spoil(photos)
    code, _, line = tool("train", "--config", recipe, *arguments)
    assert code == 2
    assert re.match("fixres train: ", line) and re.search(message, line)
    assert not (tmp_path / "run" / "report.json").exists()
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert not metrics.exists() or metrics.read_text() == ""  # the error comes before the training


def test_a_checkpoint_of_other_classes_is_refused(tool: Tool, recipe: Path, photos: Path, tmp_path: Path) -> None:
    assert tool("train", "--config", recipe, "--variants.baseline", "null", "--sweep", "[32]")[0] == 0
    for split in ("train", "val"):
        (photos / split / "class_01").rename(photos / split / "class_77")
    checkpoint = tmp_path / "run" / "fast" / "finetuned.pt"
    code, _, line = tool("evaluate", "--model", checkpoint, "--data", photos, "--engine", "torch")
    assert code == 2 and "but not 1 of the data's 2, such as class_77; give data of the classes" in line


def test_a_bad_sample_can_be_replaced_and_is_counted(tool: Tool, recipe: Path, photos: Path, tmp_path: Path) -> None:
    _corrupt(photos)
    arguments = ["--data.on_bad", "replace", "--variants.baseline", "null", "--sweep", "[32]"]
    assert tool("train", "--config", recipe, *arguments)[0] == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["variants"][0]["num_bad_samples"] == 2  # once in each of two epochs

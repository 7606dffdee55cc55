"""The command line of the fine-tuning: several resolutions, auto, the report, checkpoints for timm, every mistake."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml

from fixres.cli.commands.finetune import parse
from fixres.cli.main import call as call_command
from fixres.config.parsing import RECIPES
from fixres.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fixres.pipelines.runtime.exit_codes import run
from tests.coded import write_coded_folder
from tests.fixres.families import FAMILIES, Family, create

_SIZES = [(60 + 3 * i, 90 - 2 * i) for i in range(16)]
_CLASSES = ("class_00", "class_01")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and val/ of 16 small images in 2 classes."""
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, _SIZES)
    return tmp_path / "photos"


def write_checkpoint(path: Path, family: Family = FAMILIES[0], classes: tuple[str, ...] = _CLASSES) -> Path:
    """A network of random weights with a training resolution of 32 px."""
    info = CheckpointInfo(family.name, family.kwargs, classes, train_res=32, test_res=32, crop_pct=0.875)
    save_checkpoint(path, create(family, len(classes)), info)
    return path


class Outcome:
    """The result of a call of the tool: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.last = re.split(r"[\r\n]", err.rstrip())[-1].strip()


@pytest.fixture
def finetune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> object:
    def call(*arguments: object) -> Outcome:
        settings = ["--data", photos, "--engine", "torch", "--num-workers", 0,
                    "--work-dir", tmp_path / "work", "--optim.batch-size", 5]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["fixres finetune", *map(str, [*settings, *arguments])])
        capsys.readouterr()
        code = 0
        try:
            run(lambda: call_command("finetune", sys.argv[1:]))
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def test_several_resolutions_in_one_call(finetune: object, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "net.pt")
    done = finetune(
        "--model", checkpoint, "--test-res", "64,48", "--finetune.augmentation", "test", "--finetune.epochs", 2
    )
    assert done.code == 0, done.err
    assert re.findall(r"(\d+) px: top1", done.out) == ["48", "64"]
    assert "trainable layers: layer4.0.bn2, layer4.0.downsample.2, fc" in done.err and "in memory" in done.err
    report = json.loads((tmp_path / "net_finetuned48-64_report.json").read_text())
    assert [one["test_res"] for one in report["before"]] == [32, 48, 64] and report["train_res"] == 32
    assert [[one["test_res"] for one in finetuned["after"]] for finetuned in report["finetunings"]] == [
        [32, 48, 64]
    ] * 2
    assert all(len(finetuned["epochs"]) == 2 and finetuned["seconds"] > 0 for finetuned in report["finetunings"])
    page = (tmp_path / "net_finetuned48-64_report.md").read_text()
    assert (
        f"| 48 px | {100 * report['before'][1]['top1']:.1f} | {100 * report['finetunings'][0]['after'][1]['top1']:.1f}"
        in page
    )
    for resolution in (48, 64):
        _check_weights(tmp_path / f"net_finetuned{resolution}.pt", checkpoint, resolution)


def _check_weights(path: Path, original: Path, resolution: int) -> None:
    """timm loads them; only trainable layers differ from the original, so each fine-tuning started from it."""
    family = FAMILIES[0]
    loaded = timm.create_model(family.name, num_classes=2, **family.kwargs, checkpoint_path=str(path)).state_dict()
    net, info = load_checkpoint(path)
    assert (info.test_res, info.train_res, info.finetuned) == (resolution, 32, True)
    before = load_checkpoint(original)[0].state_dict()
    changed = {name.rpartition(".")[0] for name in before if not torch.equal(before[name], loaded[name])}
    assert changed == {"fc", *family.norms}
    assert all(torch.equal(value, loaded[name]) for name, value in net.state_dict().items())


def test_each_starts_from_the_original(finetune: object, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "net.pt")
    assert finetune("--model", tmp_path / "net.pt", "--test_res", "[48,64]", "--output", tmp_path / "both").code == 0
    assert finetune("--model", tmp_path / "net.pt", "--test_res", 64, "--output", tmp_path / "one.pt").code == 0
    both, one = (
        load_checkpoint(path)[0].state_dict() for path in (tmp_path / "both/net_finetuned64.pt", tmp_path / "one.pt")
    )
    assert all(torch.equal(value, both[name]) for name, value in one.items())
    assert (tmp_path / "one_report.md").is_file()


def test_auto(finetune: object, tmp_path: Path) -> None:
    """Objects appear 0.8 times as large in testing, so the advice is above the training resolution."""
    write_checkpoint(tmp_path / "net.pt")
    done = finetune("--model", tmp_path / "net.pt", "--test-res", "auto", "--train-res", 64, "--finetune.epochs", 1)
    assert done.code == 0, done.err
    assert "objects look" in done.err
    assert re.findall(r"(\d+) px: top1", done.out) == ["64", "96"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family(family: Family, finetune: object, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "net.pt", family)
    done = finetune("--model", tmp_path / "net.pt", "--test-res", family.side, "--finetune.layers", "paper",
               "--finetune.augmentation", "test", "--finetune.epochs", 1)  # fmt: skip
    assert done.code == 0, done.err
    assert all(name in done.err for name in family.paper) and (tmp_path / f"net_finetuned{family.side}.pt").is_file()


@pytest.mark.parametrize("augmentation", ["test_shift", "train"])
@pytest.mark.parametrize("adapt", ["batchnorm", "frechet"])
def test_other_settings(augmentation: str, adapt: str, finetune: object, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "net.pt")
    done = finetune(
        "--model",
        tmp_path / "net.pt",
        "--test-res",
        64,
        "--finetune.epochs",
        1,
        "--finetune.adapt",
        adapt,
        "--finetune.augmentation",
        augmentation,
        "--finetune.schedule",
        "step",
        "--finetune.label-smoothing",
        0.2,
    )
    assert done.code == 0, done.err
    assert ("BatchNorms from" if adapt == "batchnorm" else "pooled activations") in done.err


def test_adaptation_alone(finetune: object, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "net.pt")
    done = finetune("--model", checkpoint, "--test-res", 64, "--finetune.epochs", 0, "--finetune.adapt", "batchnorm")
    assert done.code == 0, done.err
    finetuned, before = (
        load_checkpoint(path)[0].state_dict() for path in (tmp_path / "net_finetuned64.pt", checkpoint)
    )
    assert {n.rpartition(".")[2] for n in before if not torch.equal(before[n], finetuned[n])} == {
        "running_mean", "running_var"}  # fmt: skip


def test_a_resolution_between_strides_is_logged(finetune: object, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "net.pt")
    done = finetune("--model", tmp_path / "net.pt", "--test-res", 50, "--finetune.epochs", 1)
    assert done.code == 0, done.err
    assert "50 px is not a multiple of the stride, 32 px: ResNet pads" in done.err


def test_mistakes_end_in_one_line(finetune: object, tmp_path: Path) -> None:
    net, vit = (write_checkpoint(tmp_path / f"{f.name}.pt", f) for f in (FAMILIES[0], FAMILIES[5]))
    other = write_checkpoint(tmp_path / "other.pt", classes=("a", "b", "c"))
    (tmp_path / "resnet10t_finetuned64.pt").write_text("here")
    (tmp_path / "resnet10t_finetuned80_report.md").write_text("here")
    for arguments, word in [
        ((net, "64"), "resnet10t_finetuned64.pt exists; choose another --output"),
        ((vit, "40"), "has patches of 16 px, so 40 px do not fit; use 32 or 48 px"),
        ((other, "48"), r"knows 3 classes \(a, b, c\), but not 2 of the data's 2"),
        ((net, "4"), "resolution=4 is not supported"),
        ((net, "many"), "test_res"),
        ((net, "48", "--optim.batch_size", 17), "16 samples do not fill .* lower batch_size"),
        ((net, "48", "--finetune.batch_size", 17), "16 samples do not fill .* lower batch_size"),
        ((net, "48", "--finetune.layers", "last_blocks", "--finetune.num_blocks", 99), "finetune.num_blocks=99"),
        ((net, "48,80", "--output", "x.pt"), "for several resolutions give a folder"),
        ((net, "48", "--config", "nothing"), "no recipe of that name; there are fixefficientnet"),
        ((tmp_path / "none.pt", "48"), "no such file"),
        ((net, "80"), "resnet10t_finetuned80_report.md exists; choose another --output"),
        ((net, "48", "--finetune.epochs", 0), "finetune.epochs=0 must be above 0"),
        ((net, "48", "--optim.ema", 0.99), "optim.ema is for training"),
        ((net, "48", "--optim.per_process", 4), "optim.per_process is for training; .* optim.batch_size"),
    ]:
        done = finetune("--model", arguments[0], "--test-res", *arguments[1:])
        assert done.code == 2 and re.search(word, done.last), (word, done.err)
        assert "before fine-tuning" not in done.err  # and no test was run
    assert not list(tmp_path.glob("*_finetuned48*"))


@pytest.mark.parametrize("name", sorted(path.stem for path in (RECIPES / "finetune").glob("*.yaml")))
def test_recipes_can_be_read(name: str) -> None:
    job = parse(["x.pt", "--config", name, "--test-res", "288,320"])
    settings = yaml.safe_load((RECIPES / "finetune" / f"{name}.yaml").read_text())
    assert (
        job.resolutions == [288, 320]
        and job.finetune.lr == settings["finetune"]["lr"]
        and job.finetune.epochs == settings["finetune"]["epochs"]
    )
    assert job.optim.batch_size == settings["optim"]["batch_size"]


def test_help_describes_inherited_settings(finetune: object) -> None:
    done = finetune("--help")
    text = " ".join(done.out.split())
    assert done.code == 0 and "or the timm name of cached weights." in text
    assert "the GPU if there is one. (default: auto)" in text and "Seeds order, crops, flips and jitter." in text


def test_the_published_rate() -> None:
    """8 * lr * batch / 512 of the published code, divided by 10 every 30 epochs; a literal table."""
    from fixres.training.schedule import scaled_lr, stepped_lr

    peak = scaled_lr(4e-3, 512)
    rates = [stepped_lr(epoch, peak, 30) for epoch in (0, 29.9, 30, 59.9, 60)]
    assert rates == pytest.approx([8e-3, 8e-3, 8e-4, 8e-4, 8e-5])

"""`fixres evaluate` and `fixres extract`: scores from images and from files, ReaL, ImageNet-V2, mistakes."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fixres.cli.main import call as call_command
from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize, create_model
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.datasets.eval_data import names_by_labels
from fixres.pipelines.imagenet_classes import imagenet_synsets
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg, write_coded_folder

_MODEL = ModelConfig("resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8})
_SYNSETS = ("n01440764", "n01443537")
Tool = Callable[..., tuple[int, str, str]]


def checkpoint(path: Path, classes: tuple[str, ...]) -> Path:
    """A network that distinguishes coded images: each score is above its median for half of them."""
    torch.manual_seed(0)
    net = create_model(_MODEL, len(classes))
    net.train()(torch.randn(8, 3, 32, 32))
    nn.init.normal_(net.fc.weight)
    codes = torch.from_numpy(np.stack([coded_image(32, 32, code) for code in range(8)]))
    with torch.no_grad():
        scores = net.eval()(Normalize()(codes))
        net.fc.bias -= (scores.amax(0) + scores.amin(0)) / 2
    save_checkpoint(path, net, CheckpointInfo(_MODEL.name, _MODEL.kwargs, classes, 32, 32, 0.875))
    return path


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tool:
    """Calls a tool as its command line does: exit code, stdout, last line of stderr."""

    def call(name: str, *arguments: object, data: bool = True) -> tuple[int, str, str]:
        finetuned = ["--device", "cpu", "--precision", "fp32", "--batch_size", 5]
        finetuned += ["--engine", "torch", "--num-workers", 0, "--work-dir", tmp_path / "work"] if data else []
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, [*finetuned, *arguments])])
        capsys.readouterr()
        code = 0
        try:
            run(lambda: call_command(name, sys.argv[1:]))
        except SystemExit as error:
            code = int(error.code or 0)
        output = capsys.readouterr()
        return code, output.out, re.split(r"[\r\n]", output.err.rstrip())[-1].strip()

    return call


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """train/ and val/ of 12 images in 2 synsets, val's named as ImageNet's."""
    for split in ("train", "val"):
        for number in range(1, 13):
            folder = tmp_path / "data" / split / _SYNSETS[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            picture = jpeg(coded_image(50 + number, 70 - number, number))
            (folder / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(picture)
    return tmp_path / "data"


def _figures(line: str) -> list[str]:
    """Everything before the count of images."""
    return line.partition(": ")[2].partition(" images")[0].split(", ")


def test_files_and_images_give_the_same_lines(tool: Tool, val: Path, tmp_path: Path) -> None:
    net = checkpoint(tmp_path / "net.pt", _SYNSETS)
    code, out, _ = tool("evaluate", "--model", net, "--data", val, "--test_res", "[32,48]", "--json", tmp_path / "r")
    assert code == 0
    small, large = out.splitlines()
    assert large.startswith("48 px: top1 ") and "GFLOPs an image" in large and " images/s" in large
    first, second = json.loads((tmp_path / "r").read_text())["results"]
    assert 0 < first["top1"] < 1 and first["top1_interval"][0] < first["top1"] < first["top1_interval"][1]
    assert second["gflops"] == pytest.approx(2.25 * first["gflops"], rel=0.1)  # by area
    assert first["class_counts"] == [6, 6] and np.mean(first["class_top1"]) == pytest.approx(first["top1"])

    for name, res in (("a", 32), ("b", 48)):
        arguments = ["--model", net, "--data", val, "--output", tmp_path / name, "--test_res", res]
        code, out, _ = tool("extract", *arguments)
        assert code == 0 and "12 images, 0 of them from before" in out
    code, out, _ = tool("evaluate", "--softmax", tmp_path / "a", data=False)
    assert code == 0 and _figures(out) == _figures(small)
    code, out, _ = tool("evaluate", "--softmax", f"[{tmp_path / 'a'},{tmp_path / 'b'}]", data=False)
    mean = (np.load(tmp_path / "a" / "softmax.npy") + np.load(tmp_path / "b" / "softmax.npy")) / 2
    right = (mean.argmax(1) == np.load(tmp_path / "a" / "labels.npy")).mean()
    assert code == 0 and out.startswith(f"softmax: top1 {right:.2%}, [")


def test_an_extraction_is_resumed_only_on_the_same_images_by_the_same_engine(
    tool: Tool, val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(folder: Path) -> None:
        convert(folder, tmp_path / "val.beton", ConversionConfig("roc", num_workers=0, progress=False, overwrite=True))

    def interrupt(*_: object, seen: list[int] = []) -> None:  # noqa: B006
        seen.append(0)
        if len(seen) == 3:
            raise OSError(errno.EIO, "the disk")

    stored(val / "val")
    call = ["extract", "--model", checkpoint(tmp_path / "net.pt", _SYNSETS), "--images",
            tmp_path / "val.beton", "--output", tmp_path / "a"]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("fixres.evaluation.features._SECONDS_BETWEEN_NOTES", 0.0)
        patch.setattr("fixres.evaluation.features._check_order", interrupt)
        assert tool(*call)[0] == 3
    code, _, error = tool(*call, "--engine", "roc")
    assert code == 2 and "other settings (engine: torch instead of roc)" in error and "--restart" in error
    first = (tmp_path / "val.beton").read_bytes()
    other = next((val / "val").glob("*/*"))
    Image.new("RGB", (40, 40), (9, 99, 199)).save(other)
    stored(val / "val")
    code, _, error = tool(*call)
    assert code == 2 and re.search(
        r"\.a\.journal belongs to an extraction of other images \(fingerprint: \w{16} instead of \w{16}\); "
        r"restore those, or start again with --restart$",
        error,
    )
    (tmp_path / "val.beton").write_bytes(first)
    code, out, _ = tool(*call)
    assert code == 0 and "12 images, 10 of them from before" in out
    record = json.loads((tmp_path / "a" / "extraction.json").read_text())
    assert record["engine"] == "torch" and len(record["fingerprint"]) == 16


def test_real_labels_find_their_images(tool: Tool, val: Path, tmp_path: Path) -> None:
    """With labels that are the network's own predictions for all but one image, all but that one are right."""
    net = checkpoint(tmp_path / "net.pt", _SYNSETS)
    assert tool("extract", "--model", net, "--data", val, "--output", tmp_path / "a")[0] == 0
    names = [Path(name).stem for name in json.loads((tmp_path / "a" / "names.json").read_text())]
    predictions = np.load(tmp_path / "a" / "softmax.npy").argmax(1)
    assert names != sorted(names) and len(set(predictions)) == 2
    real: list[list[int]] = [[] for _ in names]
    for name, prediction in zip(names[1:], predictions[1:].tolist(), strict=True):
        real[int(name[-8:]) - 1] = [prediction]
    real[int(names[2][-8:]) - 1] = [1 - int(predictions[2])]
    (tmp_path / "real.json").write_text(json.dumps(real))
    expected = f"ReaL: top1 {10 / 11:.2%}, [62.3, 98.4], 11 images, 1 without a label left out"
    arguments = ["--model", net, "--data", val, "--real", tmp_path / "real.json"]
    assert tool("evaluate", *arguments)[1].splitlines()[1].strip() == expected
    code, out, _ = tool("evaluate", "--softmax", tmp_path / "a", "--real", tmp_path / "real.json", data=False)
    assert code == 0 and out.splitlines()[1].strip() == expected

    # Converted data keeps the order but not the names: the labels of val make the order again.
    convert(val / "val", tmp_path / "val.beton", ConversionConfig("roc", num_workers=0, progress=False))
    arguments = ["--model", net, "--images", tmp_path / "val.beton", "--real", tmp_path / "real.json"]
    code, _, line = tool("evaluate", *arguments)
    assert code == 2 and "does not keep the images' names" in line and "--val_labels" in line
    (tmp_path / "labels.txt").write_text("".join(f"{_SYNSETS[number % 2]}\n" for number in range(1, 13)))
    code, out, _ = tool("evaluate", *arguments, "--val_labels", tmp_path / "labels.txt")
    assert code == 0 and out.splitlines()[1].strip() == expected
    (tmp_path / "labels.txt").write_text(f"{_SYNSETS[0]}\n" * 12)
    code, _, line = tool("evaluate", *arguments, "--val_labels", tmp_path / "labels.txt")
    assert code == 2 and "do not fit the data's 12 images in any known order" in line


def test_names_from_labels_in_either_order(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("b\na\nb\n")
    one, two, three = (f"ILSVRC2012_val_{number:08d}" for number in (1, 2, 3))
    assert names_by_labels(tmp_path / "l", np.array([0, 1, 1]), ("a", "b")) == [two, one, three]
    assert names_by_labels(tmp_path / "l", np.array([1, 0, 1]), ("a", "b")) == [one, two, three]
    with pytest.raises(InputError, match="do not fit the data's 3 images in any"):
        names_by_labels(tmp_path / "l", np.array([0, 0, 1]), ("a", "b"))


def _color(number: int) -> tuple[int, int, int]:
    return 20 + 23 * (number % 10), 20 + 23 * (number // 10 % 10), 20 + 23 * (number // 100)


def test_imagenet_v2_is_numbered_not_named(tool: Tool, tmp_path: Path) -> None:
    """1000 folders, each with an image of a color of its own: row n of the arrays must be of color n."""
    root = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in range(1000):
        (root / str(number)).mkdir(parents=True)
        Image.new("RGB", (40, 40), _color(number)).save(root / str(number) / "x.jpeg", quality=98, subsampling=0)
    net = checkpoint(tmp_path / "net.pt", imagenet_synsets())
    common = ["--model", net, "--images", root, "--batch_size", 100]
    code, out, _ = tool("extract", *common, "--output", tmp_path / "a")
    assert code == 0 and "1000 images" in out
    assert np.load(tmp_path / "a" / "labels.npy").tolist() == list(range(1000))
    names = json.loads((tmp_path / "a" / "names.json").read_text())
    assert [Path(name).parent.name for name in names] == [str(number) for number in range(1000)]
    from fixres.models.pretrained import open_network

    opened = open_network(str(net), imagenet_synsets())
    colors = torch.tensor([_color(number) for number in range(1000)], dtype=torch.uint8)
    with torch.inference_mode():
        solid = opened.normalize(colors[:, None, None].expand(-1, 32, 32, -1))
        expected = opened.net.forward_head(opened.net.forward_features(solid), pre_logits=True).numpy()
    found = np.load(tmp_path / "a" / "embeddings.npy")
    distances = np.linalg.norm(found[:, None] - expected[None], axis=2)
    assert (distances.argmin(1) == np.arange(1000)).mean() > 0.99
    code, out, _ = tool("evaluate", *common, "--json", tmp_path / "r.json")
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert code == 0 and result["class_counts"] == [1] * 1000 and result["classes"] == list(imagenet_synsets())
    assert _figures(out) == _figures(tool("evaluate", "--softmax", tmp_path / "a", data=False)[1])


def test_pretrained_weights_by_the_command_line(tool: Tool, val: Path, tmp_path: Path) -> None:
    net = checkpoint(tmp_path / "net.pt", _SYNSETS)
    weights = torch.load(net, weights_only=True)["state_dict"]
    torch.save({"model": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "finetune.pth")
    call = [
        "--model",
        tmp_path / "finetune.pth",
        "--arch",
        _MODEL.name,
        "--model_kwargs",
        json.dumps(_MODEL.kwargs),
    ]
    call += ["--crop_pct", 0.875, "--interpolation", "bilinear", "--test_res", "[32]", "--images", val / "val"]
    code, out, _ = tool("evaluate", *call)
    assert code == 0 and _figures(out) == _figures(tool("evaluate", "--model", net, "--images", val / "val")[1])


def test_all_images_of_class_folders_are_tested(tool: Tool, val: Path, tmp_path: Path) -> None:
    net = checkpoint(tmp_path / "net.pt", _SYNSETS)
    code, out, _ = tool("evaluate", "--model", net, "--images", val / "val")
    assert code == 0 and _figures(out) == _figures(tool("evaluate", "--model", net, "--data", val)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "MODEL is missing: a file of weights, or timm's name of cached weights"),
        (("{net}",), "does not say which data it was trained on; give --data FOLDER"),
        (("{net}", "--softmax", "{val}"), "omit the model, --test-res and --images"),
        (("--softmax", "{val}", "--test_res", "[32]"), "omit the model, --test-res and --images"),
        (("--softmax", "{val}"), r"softmax\.npy: no such file"),
        (("--model", "{net}", "--images", "{val}/nowhere"), "nowhere does not exist"),
        (("--model", "{net}", "--images", "{other}"), r"knows 2 classes, the data has 3"),
        (("--model", "{val}/x.pth", "--images", "{val}/val"), "no such file"),
        (("--model", "{bare}", "--images", "{val}/val"), "does not name its network; add --arch"),
        (
            ("--model", "{bare}", "--arch", "resnet18", "--images", "{other}"),
            "knows 2 classes, the data has 3",
        ),
        (("--model", "{net}", "--images", "{val}/val", "--test_res", "[3]"), "resolution=3 is not supported"),
        (
            ("--model", "{levit}", "--arch", "levit_128s", "--images", "{val}/val", "--test_res", "[160]"),
            "not take 160",
        ),
        (("--model", "{net}", "--images", "{val}/val", "--precision", "fp23"), "precision=fp23 must be 'auto', 'fp32'"),
        (("--model", "{net}", "--images", "{val}/val", "--real", "{val}/no.json"), r"no\.json is not a file"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: tuple[str, ...], message: str, tool: Tool, val: Path, tmp_path: Path
) -> None:
    import timm

    net = checkpoint(tmp_path / "net.pt", _SYNSETS)
    torch.save(timm.create_model("resnet18", num_classes=2).state_dict(), tmp_path / "bare.pth")
    if "{levit}" in arguments:
        torch.save(timm.create_model("levit_128s", num_classes=2).state_dict(), tmp_path / "levit.pth")
    places = {
        "net": net,
        "val": val,
        "bare": tmp_path / "bare.pth",
        "levit": tmp_path / "levit.pth",
        "other": tmp_path / "other",
    }
    write_coded_folder(tmp_path / "other", [(40, 40)] * 6, num_classes=3)
    code, _, line = tool("evaluate", *(argument.format(**places) for argument in arguments))
    assert code == 2 and re.search(message, line), line

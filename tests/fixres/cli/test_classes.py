"""A network that knows more classes than the data has, or the same in another order: each command joins by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fixres
from fixres.config.recipe import DistillConfig, ModelConfig
from fixres.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fixres.models.factory import create_model
from fixres.pipelines.imagenet_classes import imagenet_synsets
from fixres.pipelines.spec import InputError
from fixres.training.losses import open_teacher
from tests.coded import coded_image, jpeg
from tests.fixres.cli.test_evaluate import Tool, tool  # noqa: F401 (a fixture)

_MODEL = ModelConfig("resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8})
_ARCH = ("--arch", _MODEL.name, "--model-kwargs", json.dumps(_MODEL.kwargs), "--crop-pct", 0.875, "--test-res", 32)
_PARTS = ("n01440764", "n01530575", "n15075141")
_NUMBERS = (0, 10, 999)


def network(num_outputs: int) -> nn.Module:
    """Random weights whose outputs differ between images."""
    torch.manual_seed(0)
    net = create_model(_MODEL, num_outputs)
    net.train()(torch.randn(8, 3, 32, 32))
    nn.init.normal_(net.fc.weight)
    return net.eval()


def write_images(root: Path, classes: tuple[str, ...], num_images: int) -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(num_images):
            (root / name / f"{k}.jpg").write_bytes(jpeg(coded_image(40 + 3 * k, 60 - k, label + k)))
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of others with ImageNet's 1000 outputs and no names."""
    torch.save(network(1000).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """train/ and val/ of three of ImageNet's classes."""
    for split in ("train", "val"):
        write_images(tmp_path / "part" / split, _PARTS, 6)
    return tmp_path / "part"


def results(record: Path) -> list[dict]:
    return json.loads(record.read_text())["results"]


def test_a_part_of_imagenet_is_scored_both_ways(tool: Tool, weights: Path, part: Path, tmp_path: Path) -> None:  # noqa: F811
    call = ["--model", weights, *_ARCH, "--data", part]
    code, out, _ = tool("evaluate", *call, "--json", tmp_path / "r.json")
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("32 px, outputs of the data's 3 classes only: top1 ")
    assert second.startswith("  all 1000 outputs: top1 ")
    assert tool("extract", *call, "--output", tmp_path / "a")[0] == 0
    softmax, labels = np.load(tmp_path / "a" / "softmax.npy"), np.load(tmp_path / "a" / "labels.npy")
    assert softmax.shape == (18, 1000) and labels.tolist() == [number for number in _NUMBERS for _ in range(6)]
    (found,) = results(tmp_path / "r.json")
    chosen = np.array(_NUMBERS)[softmax[:, _NUMBERS].argmax(1)]
    assert found["top1"] == pytest.approx((chosen == labels).mean()) and 0 < found["top1"] < 1
    assert found["top1_all_outputs"] == pytest.approx((softmax.argmax(1) == labels).mean())
    assert found["top5_all_outputs"] == pytest.approx(np.mean([label in row.argsort()[-5:] for label, row in
                                                               zip(labels, softmax, strict=True)]))  # fmt: skip
    assert (found["num_outputs"], found["classes"], found["class_counts"]) == (1000, list(_PARTS), [6, 6, 6])
    code, _, _ = tool("evaluate", "--softmax", tmp_path / "a", "--json", tmp_path / "s.json", data=False)
    (again,) = results(tmp_path / "s.json")
    for name in ("top1", "top5", "class_top1", "classes", "top1_all_outputs", "top1_all_outputs_interval"):
        assert again[name] == pytest.approx(found[name]), name


@pytest.mark.parametrize("form", ["text", "data", "checkpoint", "imagenet", "numbers"])
def test_classes_name_the_outputs(form: str, tool: Tool, tmp_path: Path) -> None:  # noqa: F811
    """The same pictures in folders of other names have the same accuracy if `--classes` says what the outputs are."""
    names = ("ant", "cat", "dog", "elk") if form == "data" else ("elk", "ant", "dog", "cat")
    known = {"imagenet": imagenet_synsets(), "numbers": tuple(map(str, range(1000)))}.get(form, names)
    chosen = {"imagenet": _PARTS, "numbers": ("0", "10", "999")}.get(form, ("cat", "dog", "elk"))
    net = network(len(known))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    data = write_images(tmp_path / "images", chosen, 5)
    given: object = {"numbers": "imagenet", "imagenet": "imagenet"}.get(form, tmp_path / form)
    if form == "text":
        given.write_text("\n".join(names))
    elif form == "data":
        write_images(given, names, 1)
    elif form == "checkpoint":
        given = tmp_path / "named.pt"
        save_checkpoint(given, net, CheckpointInfo(_MODEL.name, _MODEL.kwargs, names, 32, 32, 0.875))
    call = ["--model", tmp_path / "net.pth", *_ARCH, "--images", data, "--classes", given]
    assert tool("evaluate", *call, "--json", tmp_path / "r.json")[0] == 0
    assert tool("extract", *call, "--output", tmp_path / "a")[0] == 0
    (found,) = results(tmp_path / "r.json")
    labels, softmax = np.load(tmp_path / "a" / "labels.npy"), np.load(tmp_path / "a" / "softmax.npy")
    assert [known[label] for label in labels] == [name for name in chosen for _ in range(5)]
    assert found["top1_all_outputs"] == pytest.approx((softmax.argmax(1) == labels).mean())


def test_numbered_folders_mean_the_same_in_data_and_images(tool: Tool, tmp_path: Path) -> None:  # noqa: F811
    """Own and other weights, for twelve folders whose names are numbers, in the order of torchvision's ImageFolder."""
    names = tuple(sorted(map(str, range(12))))
    for split in ("train", "val"):
        write_images(tmp_path / "d" / split, names, 2)
    net, found = network(12), []
    torch.save(net.state_dict(), tmp_path / "other.pth")
    save_checkpoint(tmp_path / "own.pt", net, CheckpointInfo(_MODEL.name, _MODEL.kwargs, names, 32, 32, 0.875))
    for arguments in (["--model", tmp_path / "own.pt"], ["--model", tmp_path / "other.pth", *_ARCH]):
        for place in (["--data", tmp_path / "d"], ["--images", tmp_path / "d" / "val"]):
            code, _, line = tool("evaluate", *arguments, *place, "--json", tmp_path / "r.json")
            assert code == 0, line
            found.append(results(tmp_path / "r.json")[0]["class_top1"])
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "has 1000 outputs without names, the data has 2 classes (cat, dog); name its outputs with --classes"),
        (("--classes", "imagenet"), "knows 1000 classes (n01440764,"),
        (("--classes", "{folder}/nowhere"), "nowhere does not exist"),
        (("--classes", "{folder}/net.pth"), "net.pth does not name its classes; give a checkpoint of this project"),
        (("--classes", "{folder}/list.txt"), "has 1000 outputs, but --classes gives 2 names"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "extract"])
def test_classes_that_cannot_be_matched_are_one_line(
    command: str, arguments: tuple[str, ...], message: str, tool: Tool, weights: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "list.txt").write_text("cat\ndog\n")
    data = write_images(tmp_path / "other", ("cat", "dog"), 2)
    given = [argument.format(folder=tmp_path) for argument in arguments]
    code, _, line = tool(command, "--model", weights, *_ARCH, "--images", data, *given)
    assert code == 2 and message in line, line


def test_fine_tuning_on_a_part_leaves_the_other_outputs(
    weights: Path, part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fixres.cli.main import call as call_command

    options = {"--data": part, "--output": tmp_path / "out.pt", "--optim.batch-size": 6, "--optim.weight-decay": 0,
               "--finetune.layers": "classifier", "--device": "cpu", "--engine": "torch", "--num-workers": 0,
               "--work-dir": tmp_path / "work"}  # fmt: skip
    settings = [str(one) for pair in options.items() for one in pair]
    call_command("finetune", [str(weights), *map(str, _ARCH), *settings])
    out = capsys.readouterr().out
    assert "32 px, outputs of the data's classes" in out and "32 px, all 1000 outputs" in out
    assert "top1 of the outputs of the data's classes" in out
    net, info = load_checkpoint(tmp_path / "out.pt")
    assert info.classes == imagenet_synsets()
    changed = (net.fc.weight != network(1000).fc.weight).any(1)
    assert torch.nonzero(changed).flatten().tolist() == list(_NUMBERS)


def test_other_commands_and_python_take_names(weights: Path, part: Path, tmp_path: Path) -> None:
    from fixres.cli.main import call as call_command

    module = network(1000)
    (by_itself,) = fixres.evaluate(module, part, 32, crop_pct=0.875, num_workers=0)
    (named,) = fixres.evaluate(module, part, 32, classes="imagenet", crop_pct=0.875, num_workers=0)
    assert by_itself.num_outputs == 1000 and by_itself.top1 == named.top1
    with pytest.raises(InputError, match="gives 2 names"):
        fixres.evaluate(module, part, 32, classes=["a", "b"])
    call_command("export", [str(weights), *map(str, _ARCH[:4]), "--classes", "imagenet", "--format", "safetensors",
                            "--output", str(tmp_path / "named.safetensors")])  # fmt: skip
    loaded = fixres.load(tmp_path / "named.safetensors", device="cpu")
    assert loaded.classes == imagenet_synsets()
    assert (
        fixres.load(weights, arch=_MODEL.name, model_kwargs=_MODEL.kwargs, classes="imagenet").classes[10] == _PARTS[1]
    )
    outcome = fixres.finetune(loaded, part, 32, batch_size=6, num_workers=0)
    assert outcome.after.num_outputs == 1000 and loaded.classes == imagenet_synsets()
    call_command("activations", [str(weights), *map(str, _ARCH), "--data", str(part), "--engine", "torch",
                                 "--num-workers", "0", "--work-dir", str(tmp_path / "work")])  # fmt: skip


def test_a_teacher_of_more_classes_gives_those_of_the_data(weights: Path) -> None:
    config = DistillConfig(str(weights), arch=_MODEL.name, model_kwargs=_MODEL.kwargs, resolution=32)
    teacher = open_teacher(config, _PARTS, torch.device("cpu"))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    expected = network(1000)(teacher.normalize(images))
    torch.testing.assert_close(teacher(images), expected[:, list(_NUMBERS)].detach())

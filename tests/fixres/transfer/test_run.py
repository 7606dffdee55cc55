"""Both commands from a checkpoint to a report; a run that is killed and resumed ends with the same weights."""

from __future__ import annotations

import json
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fixres
from fixres.cli.main import call
from fixres.config.parsing import RECIPES, parse
from fixres.config.transfer import DetectRecipe, SegmentRecipe
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize
from fixres.pipelines.spec import InputError
from fixres.transfer.detection import DetectionTask
from fixres.transfer.feature_pyramid import Backbone
from fixres.transfer.layouts.annotations import BoxedData
from fixres.transfer.layouts.masks import read_masks
from fixres.transfer.layouts.voc import read_voc
from fixres.transfer.sample_loader import SampleLoader
from fixres.transfer.samples import MaskReader, read_boxed
from fixres.transfer.segmentation import SegmentationTask, Segmenter
from tests.fixres.conftest import CPU
from tests.fixres.families import RESNET, create
from tests.fixres.transfer.layouts import write_coco, write_folders, write_voc

KWARGS = {"channels": [8, 16, 24, 32], "stem_width": 8}
SHARED_OPTIONS = ["--epochs", "2", "--optim.batch-size", "2", "--optim.warmup-epochs", "0.5", "--num-workers", "0",
                  "--device", "cpu", "--precision", "fp32", "--fault-tolerance.steps", "1"]  # fmt: skip
DETECT = ["--min-sizes", "48,64", "--max-size", "96", "--fpn-channels", "16", "--head-features", "16",
          "--anchor-sizes", "8,16,32,48,64"]  # fmt: skip
SEGMENT = ["--base-size", "48", "--crop-size", "48"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ours, and data for both commands."""
    root = tmp_path_factory.mktemp("transfer")
    net = create(RESNET._replace(kwargs=KWARGS))
    save_checkpoint(
        root / "net.pt", net, CheckpointInfo("resnet10t", KWARGS, ("a", "b"), 32, 32, 1.0, mean=(0.5, 0.4, 0.3))
    )
    write_voc(root / "voc", 6, 2)
    write_coco(root / "coco", 4, 2)
    write_folders(root / "folders", 4, 2)
    return root


def options(folder: Path, task: str, data: str, output: Path, *more: str) -> list[str]:
    own = DETECT if task == "detect" else SEGMENT
    return ["--backbone", str(folder / "net.pt"), "--data", str(folder / data), "--output", str(output),
            *SHARED_OPTIONS, *own, *more]  # fmt: skip


def trained(run: Path) -> dict[str, Any]:
    return torch.load(run / "trained.pt", weights_only=True)


@pytest.mark.parametrize(("task", "data"), [("detect", "voc"), ("segment", "folders")])
def test_a_killed_run_resumes_with_the_same_weights(
    task: str, data: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    call(task, options(folder, task, data, tmp_path / "whole", "--eval-every", "1", "--num-workers", "1"))
    assert active_children() == []
    shown = capsys.readouterr()
    assert f"{folder / 'net.pt'}: 90 tensors loaded into the backbone; 2 left out (fc.weight, fc.bias)" in shown.err
    assert "report.html" in shown.out
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    metric = "map_voc07" if task == "detect" else "mean_iou"
    assert report["task"] == task and 0 <= report["result"][metric] <= 1 and len(report["curve"]) == 2
    assert report["backbone"]["num_loaded"] == 90 and report["train_seconds"] > 0
    page = (tmp_path / "whole" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # the loss, two test images

    iterate, count = SampleLoader.__iter__, 0

    def dying(loader: SampleLoader) -> Any:
        nonlocal count
        for batch in iterate(loader):
            count += 1
            if count == 4:  # in the middle of an epoch: before its next training checkpoint
                raise SystemExit(9)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(SampleLoader, "__iter__", dying)
        with pytest.raises(SystemExit):
            call(task, options(folder, task, data, tmp_path / "killed", "--eval-every", "1"))
    assert not (tmp_path / "killed" / "trained.pt").exists()
    call(task, options(folder, task, data, tmp_path / "killed", "--eval-every", "1", "--resume", "auto"))
    whole, resumed = trained(tmp_path / "whole"), trained(tmp_path / "killed")
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    again = json.loads((tmp_path / "killed" / "report.json").read_text())
    assert again["result"] == report["result"] and again["curve"] == report["curve"]
    check_opened(task, tmp_path / "whole", options(folder, task, data, tmp_path / "none"))
    with pytest.raises(InputError, match=r"the run to resume has hflip=0\.5, this call has 0\.1"):
        call(task, options(folder, task, data, tmp_path / "killed", "--eval-every", "1", "--resume", "auto", "--hflip",
                           "0.1"))  # fmt: skip


def check_opened(task: str, run: Path, given: list[str]) -> None:
    """The saved network, opened in Python, finds what the run's own network finds."""
    kind, make = {"detect": (DetectRecipe, DetectionTask), "segment": (SegmentRecipe, SegmentationTask)}[task]
    recipe = parse(kind, given)
    data = (read_voc if task == "detect" else read_masks)(Path(recipe.data.path))
    own = make(recipe, data, CPU)
    own.net.load_state_dict(trained(run)["state_dict"])
    if task == "detect":
        net, images = fixres.detector(run / "trained.pt"), [read_boxed(one)[0] for one in data.test]
        assert net.classes == ("__background__", *data.classes) and net.transform.image_mean == [0.5, 0.4, 0.3]
        found = [(one["boxes"], one["labels"] - 1, one["scores"]) for one in net([one.float() / 255 for one in images])]
        wanted = own.find(images)
        assert sum(len(one.scores) for one in wanted) > 0
        pairs = zip(sum(found, ()), [one[k] for one in wanted for k in range(3)], strict=True)
    else:
        net, images = fixres.segmenter(run / "trained.pt"), [MaskReader(data)(one)[0] for one in data.test]
        assert net.classes == data.classes
        pairs = [(net.predict(one), own.find(one)) for one in images]
    assert all(torch.equal(one.detach(), torch.as_tensor(other)) for one, other in pairs)
    opener = {"detect": fixres.segmenter, "segment": fixres.detector}[task]
    with pytest.raises(InputError, match=rf"made by `fixres {task}`; open it with fixres\.{task}"):
        opener(run / "trained.pt")


def test_other_files_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    for opener, name in ((fixres.detector, "detect"), (fixres.segmenter, "segment")):
        with pytest.raises(InputError, match=f"not the trained.pt of `fixres {name}`; fixres.load opens classifiers"):
            opener(folder / "net.pt")
    call("segment", options(folder, "segment", "folders", tmp_path / "run", "--epochs", "1"))
    content = trained(tmp_path / "run")
    for key, value, message in (
        ("version", 2, "version 2, this program reads version 1"),
        ("classes", None, "the names of its classes are missing"),
        ("classes", ["a"], "its weights do not fit its network: .* of another shape"),
        ("backbone", {"model": "resnet10t"}, "the description of its backbone is missing"),
        ("backbone", content["backbone"] | {"model": "no_such_net"}, "no_such_net"),
        ("recipe", {"decoder": "none"}, "its recipe is damaged or of another version"),
    ):
        torch.save(content | {key: value}, tmp_path / "other.pt")
        with pytest.raises(InputError, match=f"other.pt: .*{message}") as error:
            fixres.segmenter(tmp_path / "other.pt")
        assert "\n" not in str(error.value)


def test_messages_name_the_options_of_the_command(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """They come before scenes are drawn."""
    torch.save(torch.load(folder / "net.pt", weights_only=True)["state_dict"], tmp_path / "bare.pt")
    torch.save({"format": "fixres-detect", "state_dict": {"a": torch.ones(1)}}, tmp_path / "trained.pt")
    monkeypatch.chdir(tmp_path)
    bare, detector, none = ("--backbone", "bare.pt"), ("--backbone", "trained.pt"), ("--backbone", "none.pt")
    for given, message in (
        (bare, r"bare.pt: the file does not name its network; add --backbone\.arch with"),
        (
            (*bare, "--backbone.arch", "resnet18"),
            r"with --backbone\.arch, or its arguments with --backbone\.model-kwargs",
        ),
        (("--backbone.arch", "resnet18"), r"omit --backbone\.arch and --backbone\.model-kwargs"),
        (detector, r"trained.pt: made by `fixres detect`, not a classifier; open it with fixres\.detector in Python"),
        (none, "none.pt: no such file"),
        (("--data.num-train", "8"), "^--data.num-train 8 leaves a class empty; use 12 or more"),
        (("--data.seed", "-1"), "^--data.seed -1 must be within"),
    ):
        data = "scenes" if given[0] != "--backbone.arch" and len(given) == 2 else str(folder / "folders")
        words = [*options(folder, "segment", "folders", tmp_path / "run"), "--data", data, *given]
        with pytest.raises(InputError, match=message):
            call("segment", words)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("task", "opener"), [("detect", "detector"), ("segment", "segmenter")])
def test_networks_of_other_tasks_are_not_opened_as_classifiers(task: str, opener: str, tmp_path: Path) -> None:
    path = tmp_path / "trained.pt"
    torch.save({"format": f"fixres-{task}", "state_dict": {"a": torch.ones(1)}}, path)
    opened = [
        lambda: fixres.load(path),
        lambda: fixres.backbone(path, arch="resnet18"),
        lambda: call("evaluate", [str(path)]),
        lambda: call("finetune", [str(path), "--test-res", "64"]),
        lambda: call("predict", [str(path), "photo.jpg"]),
    ]
    for one in opened:
        with pytest.raises(
            InputError, match=f"made by `fixres {task}`, not a classifier; open it with fixres.{opener} in"
        ):
            one()


def test_weights_arrive_and_frozen_ones_stay(folder: Path, tmp_path: Path) -> None:
    call("detect", options(folder, "detect", "coco", tmp_path / "run", "--backbone.num-frozen-stages", "1", "--epochs",
                           "1"))  # fmt: skip
    given = torch.load(folder / "net.pt", weights_only=True)["state_dict"]
    found = trained(tmp_path / "run")["state_dict"]
    for name in ("conv1.0.weight", "layer1.0.conv1.weight", "layer4.0.bn1.running_mean"):
        assert torch.equal(given[name], found[f"backbone.backbone.body.{name}"])
    assert not torch.equal(given["layer4.0.conv1.weight"], found["backbone.backbone.body.layer4.0.conv1.weight"])


def test_deeplab_without_dilation_and_with_random_weights(folder: Path, tmp_path: Path) -> None:
    call("segment", options(folder, "segment", "voc", tmp_path / "run", "--decoder", "deeplabv3",
                            "--output-stride", "32", "--aux-weight", "0", "--backbone.init", "random",
                            "--backbone.batchnorm", "trainable", "--epochs", "1"))  # fmt: skip
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["backbone"]["source"] == "random weights, network resnet10t" and report["backbone"]["num_loaded"] == 0
    assert not any(name.startswith("aux") for name in trained(tmp_path / "run")["state_dict"])


def test_bad_test_images_end_a_run_before_its_training(folder: Path, tmp_path: Path) -> None:
    root = write_folders(tmp_path / "binary")
    for path in root.glob("masks/*/*.png"):
        Image.fromarray(255 * (np.array(Image.open(path)) > 0).astype(np.uint8)).save(path)
    given = options(folder, "segment", str(root), tmp_path / "run")
    with pytest.raises(
        InputError, match=r"val: of all 3 classes, these masks have pixels of background; write numbers"
    ):
        call("segment", given)
    voc = write_voc(tmp_path / "voc", 2, 2)
    (voc / "JPEGImages/voc_003.jpg").write_bytes((voc / "JPEGImages/voc_003.jpg").read_bytes()[:900])
    with pytest.raises(InputError, match=r"voc_003.jpg: cannot be decoded \(image file is truncated"):
        call("detect", options(folder, "detect", str(voc), tmp_path / "run"))
    assert not list(tmp_path.glob("run/metrics.jsonl"))


def test_a_run_is_not_resumed_with_classes_of_other_names(folder: Path, tmp_path: Path) -> None:
    root = write_folders(tmp_path / "folders", 2, 2)
    given = options(folder, "segment", str(root), tmp_path / "run", "--epochs", "1", "--resume", "auto")
    call("segment", given)
    (root / "classes.txt").write_text("background\nb\na\n")
    with pytest.raises(InputError, match="a class of the run to resume was 'a', now 'b'; restore its name"):
        call("segment", given)


class Annotated(nn.Module):
    """A detector that finds what is annotated, and nothing else."""

    def __init__(self, data: BoxedData) -> None:
        super().__init__()
        self._targets = iter([read_boxed(one)[1] for one in data.test])

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        assert all(image.dtype == torch.float32 and image.max() <= 1 for image in images)
        found = [next(self._targets) for _ in images]
        return [one | {"scores": torch.full(one["labels"].shape, 0.9)} for one in found]


def test_found_boxes_have_the_labels_and_the_order_of_the_annotations(folder: Path) -> None:
    data = read_voc(write_voc(folder / "order", 2, 9))
    task = DetectionTask(parse(DetectRecipe, options(folder, "detect", "order", folder / "none")), data, CPU)
    task.net = Annotated(data)
    assert task.evaluate(task.test, "").map_voc == 1.0
    task.net = Annotated(data._replace(test=data.test[::-1]))
    assert task.evaluate(task.test, "").map_voc < 0.9


class FromMask(Segmenter):
    """Logits by the miniature's colors: class a is bright in red and blue, class b in green and blue."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, 3, "fcn", False, 48)
        backbone.normalize = Normalize((0, 0, 0), (1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        red, green, blue = (one > 250 for one in (255 * images).unbind(1))
        both = [~blue, blue & red & ~green, blue & green]  # b is in front of a
        return (torch.stack([one.float() for one in both], 1),)


def test_found_masks_have_the_size_and_the_labels_of_the_annotations(folder: Path) -> None:
    data = read_masks(folder / "folders")
    task = SegmentationTask(parse(SegmentRecipe, options(folder, "segment", "folders", folder / "none")), data, CPU)
    task.net = FromMask(task.backbone)
    result = task.evaluate(task.test, "")
    assert result.mean_iou > 0.95 and result.num_pixels == 2 * 48 * 64


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (torch.zeros(32, 48, 3, dtype=torch.uint8), r"Tensor of torch.uint8 \(32, 48, 3\)"),
        (torch.zeros(3, 32, 48), r"Tensor of torch.float32 \(3, 32, 48\)"),
        (torch.zeros(1, 3, 32, 48, dtype=torch.uint8), r"Tensor of torch.uint8 \(1, 3, 32, 48\)"),
        (torch.zeros(3, 48, dtype=torch.uint8), r"Tensor of torch.uint8 \(3, 48\)"),
        (torch.zeros(3, 0, 48, dtype=torch.uint8), r"Tensor of torch.uint8 \(3, 0, 48\)"),
        (np.zeros((3, 32, 48), np.uint8), r"ndarray of uint8 \(3, 32, 48\)"),
        ("photo.jpg", "str"),
    ],
)
def test_predict_refuses_other_images_in_one_line(image: Any, found: str, folder: Path) -> None:
    backbone = fixres.backbone(folder / "net.pt", (-2, -1))
    with pytest.raises(InputError, match=rf"takes a uint8 tensor \(3, H, W\), .*, not {found}$"):
        FromMask(backbone).predict(image)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("detect", ["--data", "/nowhere"], "--data /nowhere is not a folder"),
        ("detect", ["--backbone", "/nowhere/net.pt"], "/nowhere/net.pt: no such file"),
        ("detect", ["--anchor-sizes", "8,16"], "the pyramid has 5 levels; give a size for each"),
        ("detect", ["--optim.label-smoothing", "0.1"], "torchvision's detector has none"),
        ("detect", ["--optim.ema", "0.9"], "optim.ema is for `fixres train`; omit it"),
        ("detect", ["--optim.batch-size", "100"], "6 training images are fewer than optim.batch_size=100; lower it"),
        ("detect", ["--data.classes", "a,b,"], "data.classes=a,b, has an empty name"),
        ("segment", ["--crop-size", "7"], "crop_size=7 must be from 8 to 2048 pixels"),
        ("detect", ["--min-sizes", "200"], "min_sizes: 200 px is above max_size=96"),
        ("segment", ["--data.on-bad", "skip"], "data.on_bad=skip leaves out bad boxes; masks have none"),
        ("segment", ["--output-stride", "7"], "output_stride=7 must be 8, 16 or 32"),
        ("segment", ["--optim.warmup-epochs", "9"], "a warm-up of 9 epochs is longer than the training of 2"),
        ("segment", ["--scale", "2,1"], "must satisfy 0 < low <= high"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line(task: str, change: list[str], message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        call(task, options(folder, task, "voc", tmp_path / "run", *change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted([*RECIPES.glob("detect/*.yaml"), *RECIPES.glob("segment/*.yaml")]),
                         ids=lambda path: f"{path.parent.name}/{path.stem}")  # fmt: skip
def test_recipes_are_valid(path: Path, tmp_path: Path) -> None:
    kind = DetectRecipe if path.parent.name == "detect" else SegmentRecipe
    recipe = parse(kind, ["--config", path.stem, "--backbone", "resnet50", "--data", str(tmp_path)], "", path.parent)
    recipe.check_complete()
    assert recipe.name.startswith((path.stem, path.parent.name)) and recipe.task == path.parent.name
    assert 0.005 <= recipe.optim.lr * recipe.optim.batch_size / 256 <= 0.1

"""Wrong calls: each ends in one line that names the remedy, and leaves nothing behind."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fixres.cli.main import dispatch
from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import create_model
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, run
from tests.coded import write_coded_folder

_MODEL = ModelConfig("resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """photos/ of 2 classes, others/ of 3, renamed/ of another; net.pt for the 2 classes; x.beton and x.onnx."""
    folder = tmp_path_factory.mktemp("place")
    for name, num_classes in (("photos/train", 2), ("photos/val", 2), ("others", 3)):
        write_coded_folder(folder / name, [(40, 40)] * 6, num_classes=num_classes)
    torch.manual_seed(0)
    info = CheckpointInfo(_MODEL.name, _MODEL.kwargs, ("class_00", "class_01"), 32, 32, 0.875)
    save_checkpoint(folder / "net.pt", create_model(_MODEL, 2), info)
    (folder / "x.beton").write_bytes(b"finished")
    (folder / "x.onnx").write_bytes(b"x")
    for split in ("train", "val"):
        shutil.copytree(folder / "photos" / split / "class_00", folder / "renamed" / split / "cat")
    (folder / "features").mkdir()
    (folder / "features" / "kept.txt").touch()
    yield folder
    shutil.rmtree(folder)


_CALLS = [
    ("trian --config photos", "unknown command trian; did you mean train?"),
    ("train --confg photos --data photos", "unknown option --confg, did you mean --config?"),
    ("train --config photo --data photos", "no recipe of that name; did you mean photos?"),
    ("train --config photos", "no data is named; give --data FOLDER"),
    ("train --config photos --data nowhere", "--data nowhere does not exist; give a folder of photographs"),
    (
        "train --config photos --data photos/train --engine rok",
        "engine=rok must be 'auto', 'roc', 'roc-gpu', 'roc-dali', 'torch'",
    ),
    ("train --config photos --data photos --variant fats", "it has baseline, fast"),
    ("train --lr 0.1", "unknown option --lr, did you mean --optim.lr?"),
    ("train --arms.fast.fix.lr 0.1", "did you mean --variants.fast.finetune.lr?"),
    ("train --config photos --data photos --sweep 96,x", r"sweep[1]=x must be a whole number"),
    ("evaluate net.pt --test-res 96 112 --data photos", "written with commas and without spaces, as 96,112"),
    ("evaluate net.pt --test-res [32,48", "must be"),
    ("evaluate net.pt", "net.pt does not say which data it was trained on; give --data FOLDER"),
    ("evaluate photos net.pt", "net.pt: unexpected, options begin with --"),
    ("evaluate nett.pt --data photos", "nett.pt: no such file"),
    ("evaluate nett.pt", "nett.pt: no such file"),
    ("evaluate net.pt --images others", "knows 2 classes"),
    ("finetune net.pt --data photos", "test_res is empty; give resolutions such as 288,320, or auto"),
    ("convert photos/train x.beton", "x.beton exists; replace it with --overwrite"),
    ("convert train.beton photos/train", "photos/train is a folder; choose a file name"),
    ("convert photos/train y.beton --format rok", "format=rok must be 'roc', 'ffcv' or 'webdataset'"),
    ("extract net.pt --data photos --output features", "features exists; replace it with --overwrite"),
    (
        "extract net.pt --data photos --output photos --overwrite",
        "is a folder of other files, which would be lost",
    ),
    ("extract net.pt --data photos --output . --overwrite", "is a folder of other files"),
    ("convert photos/val others --format webdataset --overwrite", "others is a folder of other files"),
    ("convert photos/val photos/val/y.beton", "photos/val/y.beton is inside photos/val, the images"),
    ("inspect photos/train --json photos/train/class_00/00000.jpg", "is not a JSON file and would be lost"),
    ("evaluate net.pt --data photos --json net.pt", "net.pt is not a JSON file and would be lost"),
    ("predict net.pt", "IMAGE is missing: one or several image files"),
    ("predict net.pt photos", "photos"),
    ("export net.pt", "--format is missing; choose safetensors, onnx or timm"),
    ("export net.pt --format onxx", "format=onxx must be 'safetensors', 'onnx' or 'timm'"),
    ("advise photos/train --variant fast", "also give --config"),
    ("estimate --small 128x3", "small=128x3 must be pairs such as 128:12,160:4"),
    ("merge y.beton", "no parts of y.beton found beside it; convert them with --shard i/n, or give their paths"),
    ("show-crops photos/train crops.jpg", "must be a .png file"),
    ("inspect photos", "give one of them, such as photos/train"),
    (
        "predict others/class_00/00000.jpg net.pt",
        "an image, not a network; give a file of weights, and to fixres predict the weights",
    ),
    ("predict x.onnx others/class_00/00000.jpg", "an ONNX file, which other programs run; give the checkpoint"),
    ("finetune net.pt --data photos --test-res 48 --output rn.txt", "rn.txt must end in .pt, or be a folder"),
    ("finetune net.pt --data renamed --test-res 48", "replace its classifier (fixres finetune --new-classifier)"),
    ("convert photos/train y.txt", "y.txt must end in .beton for format roc"),
    ("convert photos/train y.beton --format webdataset", "writes a folder; choose a name without .beton"),
    ("predict net.pt others/class_00/00000.jpg --batch-size 0", "batch_size=0 must be above 0"),
    ("evaluate net.pt --data photos --batch-size 0", "batch_size=0 must be above 0"),
    ("evaluate net.pt --data photos --device gpu", "device='gpu' is unknown; use auto, cpu or cuda[:n]"),
    ("train --config photos --data photos --device gpu", "device='gpu' is unknown"),
    ("train --config photos --data photos --variants.fast.epochs 3", "epoch 5 on are never reached in 3 epochs"),
    ("train --config photos --data photos --optim.warmup_epochs 9", "longer than the training of 8; use --optim.warm"),
    ("inspect -- --odd", "--odd"),
]


@pytest.mark.parametrize(("call", "remedy"), _CALLS, ids=[call for call, _ in _CALLS])
def test_a_wrong_call_is_one_line_with_a_remedy(
    call: str, remedy: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["fixres", *call.split()])
    with pytest.raises(SystemExit) as end:
        run(lambda: dispatch(sys.argv[1:]))
    error = capsys.readouterr().err
    lines = [line for line in re.split(r"[\r\n]+", error) if line.strip()]
    lines = [line for line in lines if not line.startswith(("training images: ", "test images: "))]
    assert end.value.code == EXIT_INPUT and len(lines) == 1, error
    assert remedy in error, error
    assert sorted(place.rglob("*")) == before

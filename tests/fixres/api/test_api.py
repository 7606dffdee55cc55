"""What a user types: section by section as README shows it, on small data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import fixres
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import TINY

SMALL = {
    "variants": {
        "fast": {"epochs": 2, "resolution": {"points": [[0, 32]]}, "test_res": 64, "finetune": {"epochs": 1}},
        "baseline": None,
    },
    "model": {"name": TINY.name, "kwargs": TINY.kwargs},
    "optim": {"batch_size": 4, "warmup_epochs": 1},
    "sweep": [32],
}


@pytest.fixture(scope="module")
def betons(coded_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("betons")
    for split in ("train", "val"):
        done = fixres.convert(str(coded_folder), str(folder / f"{split}.beton"), num_workers=0, progress=False)
        assert done.num_samples == 24
    return folder


def test_importing_is_quick_and_lists_what_there_is() -> None:
    code = "import sys, fixres; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    wanted = {"Loader", "convert", "train", "finetune", "evaluate", "advise", "load", "inspect", "InputError"}
    assert wanted <= set(fixres.__all__) <= set(dir(fixres))
    for name in fixres.__all__:
        assert getattr(fixres, name).__doc__, name


def test_convert_inspect_advise(betons: Path, coded_folder: Path, tmp_path: Path) -> None:
    facts = fixres.inspect(betons / "train.beton")
    assert facts.classes.names == ("class_00", "class_01") and facts.num_samples == 24
    advice = fixres.advise(str(coded_folder), 128)
    assert advice.advised.test_res > 128 and advice.advised.test_res % 32 == 0
    with pytest.raises(InputError, match=r"qualty is not an option of a conversion; choose from max_side"):
        fixres.convert(coded_folder, tmp_path / "x.beton", qualty=80)
    with pytest.raises(InputError, match=r"train.beton exists"):
        fixres.convert(coded_folder, betons / "train.beton")


def test_a_training_loop(betons: Path) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    loader = fixres.Loader(str(betons / "train.beton"), resolution=32, batch_size=8, device="cpu")
    seen = []
    for epoch in range(2):
        loader.set_resolution(32 if epoch < 1 else 48)
        for images, labels in loader:
            seen.append(tuple(images.shape))
            nn.functional.cross_entropy(model(images), labels).backward()
    loader.close()
    assert seen == [(8, 3, 32, 32)] * 3 + [(8, 3, 48, 48)] * 3


def test_train_then_load_predict_and_finetune(betons: Path, coded_folder: Path, tmp_path: Path) -> None:
    report = fixres.train(
        "demo", run_dir=tmp_path / "run", data={"path": str(betons), "work_dir": str(tmp_path)}, device="cpu", **SMALL
    )
    (result,) = report.variants
    assert result.name == "fast" and 0 <= result.top1 <= 1
    net = fixres.load(tmp_path / "run" / "fast" / "finetuned.pt")
    files = sorted(coded_folder.rglob("*.jpg"))
    right = np.mean([row[0].name == file.parent.name for row, file in zip(net.predict(files), files, strict=True)])
    assert right == pytest.approx(result.top1, abs=1 / 24)
    assert net.info.test_res == 64 and net.info.finetuned


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fixres.train("demos"), "^recipe demos: no such file"),
        (lambda: fixres.train("demo", optim={"rate": 1}), "unknown key optim.rate"),
        (lambda: fixres.load("nothing.pt"), "nothing.pt"),
        (lambda: fixres.inspect("nothing"), "nothing"),
    ],
)
def test_mistakes_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

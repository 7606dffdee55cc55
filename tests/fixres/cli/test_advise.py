"""`fixres advise`: its figures against a simulation with torchvision, the document, mistakes in one line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from fixres.cli.main import call as call_command
from fixres.pipelines.spec import EvalCrop, InputError, TrainCrop
from fixres.resolution.advice import advise, explanation
from tests.coded import coded_image, jpeg, write_coded_folder
from tests.pipelines.loaders.loading import write_coded_beton

ROOT = Path(__file__).resolve().parents[3]
SIZES = [(375, 500), (500, 375), (400, 400), (300, 500)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_coded_folder(tmp_path / "photos", SIZES)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["fixres advise", *map(str, arguments)])
    call_command("advise", sys.argv[1:])


def as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    call(monkeypatch, *arguments, "--json", "-")
    return json.loads(capsys.readouterr().out)


def simulated_ratio(scale: tuple[float, float], train_res: int, test_res: int) -> float:
    """Mean over SIZES of side in testing over side in training, of boxes that torchvision draws; error about 0.3 %."""
    torch.manual_seed(4)
    ratios = []
    for height, width in SIZES:
        short = math.floor(test_res / 0.875)
        tested = short * math.sqrt(max(height, width) / min(height, width))
        for _ in range(3000):
            _, _, h, w = RandomResizedCrop.get_params(torch.empty(3, height, width), list(scale), [3 / 4, 4 / 3])
            ratios.append(tested * math.sqrt(h * w / (height * width)) / train_res)
    return float(np.mean(ratios))


def test_figures(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = as_json(monkeypatch, capsys, photos, "--train-res", 160)
    assert (facts["train_res"], facts["crop_pct"], facts["stride"]) == (160, 0.875, 32)
    assert (facts["num_images"], facts["num_samples"], facts["bad_samples"]) == (4, 4, [])
    assert facts["train_crop"]["scale"] == [0.08, 1.0]
    at_train = facts["at_train_res"]
    assert (at_train["test_res"], at_train["cost_factor"], at_train["standard_error"]) == (160, 1, 0)
    assert at_train["ratio"] == pytest.approx(simulated_ratio((0.08, 1.0), 160, 160), rel=0.015)
    assert facts["matching_test_res"] == pytest.approx(160 / at_train["ratio"], rel=0.01)
    below, above = facts["candidates"]
    assert below["test_res"] < facts["matching_test_res"] < above["test_res"] == below["test_res"] + 32
    assert below["ratio"] < 1 < above["ratio"]
    for one in (below, above):
        assert one["cost_factor"] == pytest.approx((one["test_res"] / 160) ** 2)
    assert facts["advised"] in (below, above)
    assert facts["ideal_ratio"] == pytest.approx(0.708241 / 0.875, abs=1e-5)


def test_options_override_the_recipe(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe photos trains its fast variant at 64, then 96 px, and its baseline at 128; scale from 0.25."""
    facts = as_json(monkeypatch, capsys, photos, "--config", "photos")
    assert facts["train_res"] == 96 and facts["train_crop"]["scale"] == [0.25, 1.0]
    assert facts["at_train_res"]["ratio"] == pytest.approx(simulated_ratio((0.25, 1.0), 96, 96), rel=0.015)
    assert as_json(monkeypatch, capsys, photos, "--config", "photos", "--variant", "baseline")["train_res"] == 128
    facts = as_json(
        monkeypatch, capsys, photos, "--config", "photos", "--train-res", 200, "--scale", "0.5,0.9", "--ratio", "1,2",
        "--crop-pct", 0.9, "--stride", 10,
    )  # fmt: skip
    assert (facts["train_res"], facts["crop_pct"]) == (200, 0.9)
    assert (facts["train_crop"]["scale"], facts["train_crop"]["ratio"]) == ([0.5, 0.9], [1, 2])
    assert all(one["test_res"] % 10 == 0 for one in facts["candidates"])


def test_samples_have_a_standard_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = as_json(monkeypatch, capsys, photos, "--num-images", 3)
    assert (facts["num_images"], facts["num_samples"]) == (3, 4) and facts["at_train_res"]["standard_error"] > 0
    call(monkeypatch, photos, "--num-images", 3)
    assert "3 images chosen at random of 4" in capsys.readouterr().out
    write_coded_beton(tmp_path / "x.beton", SIZES)
    facts = as_json(monkeypatch, capsys, tmp_path / "x.beton", "--num-images", 3)
    assert facts["num_images"] == 4 and facts["at_train_res"]["standard_error"] == 0


def test_the_document_shows_what_the_tool_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    for k in range(10):
        (tmp_path / "a" / f"{k}.jpg").write_bytes(jpeg(coded_image(375, 500)))
    call(monkeypatch, tmp_path, "--train-res", 224)
    printed = capsys.readouterr().out.rstrip().splitlines()
    document = (ROOT / "docs" / "theory.md").read_text()
    assert "\n".join(line.rstrip() for line in printed) in document


def test_picture(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, photos, "--plot", tmp_path / "new" / "sizes.PNG")
    with Image.open(tmp_path / "new" / "sizes.PNG") as picture:
        assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(1 << 20)) > 20


@pytest.mark.parametrize(("train_res", "stride", "candidates"), [(8, 32, [32]), (2048, 32, [2048]), (100, 700, [700])])
def test_advice_stays_within_the_loaders_resolutions(train_res: int, stride: int, candidates: list[int]) -> None:
    advice = advise(train_res, TrainCrop(), EvalCrop(), np.array(SIZES), stride)
    assert [one.test_res for one in advice.candidates] == candidates


def test_explanation_without_gain() -> None:
    advice = advise(224, TrainCrop((1.0, 1.0), (1.0, 1.0)), EvalCrop(1.0), np.array([(300, 300)]))
    assert advice.advised.test_res == 224 and explanation(advice).endswith("look alike: stay at 224 px.")
    assert "\n" not in explanation(advice)


def test_bad_images_are_named_after_the_advice(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "class_00" / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^1 of the sampled images .*bad\.jpg"):
        call(monkeypatch, photos)
    assert "4 images chosen at random of 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--plot", "x.jpg"), r"--plot x\.jpg must be a \.png file"),
        (("--variant", "fast"), "also give --config"),
        (("--config", "nowhere"), "no recipe of that name"),
        (("--train-res", "4"), "resolution=4 is not supported"),
        (("--scale", "0.5,0.2"), "scale="),
        (("--scale", ".nan,1"), "scale=nan"),
        (("--ratio", "0,1"), "ratio="),
        (("--crop-pct", "1.5"), "crop_pct=1.5"),
        (("--stride", "0"), "stride=0"),
        (("--num-images", "0"), "num_images=0|0 samples to look at"),
        (("--num-images", "1"), "use more"),
    ],
)
def test_mistakes_are_named(
    arguments: tuple[str, ...], word: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=word) as caught:
        call(monkeypatch, photos, *arguments)
    assert "\n" not in str(caught.value)


def test_a_missing_variant_is_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.yaml").write_text("name: one\nvariants: {baseline: {epochs: 1}}\n")
    with pytest.raises(InputError, match="one does not have this variant; it has baseline"):
        call(monkeypatch, photos, "--config", tmp_path / "one.yaml", "--variant", "fast")


def test_no_data_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "advise_resolution.py"), str(tmp_path / "nowhere")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert "nowhere does not exist" in done.stderr

"""Published weights: loading in order, folds, scores by hand, conclusions on literal numbers, one tiny run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.published import run as published
from benchmarks.published.pictures import NUM_FOLDS, Pictures, Rows
from benchmarks.published.scores import calibration_error, nll, temperature
from benchmarks.published.tables import conclusions, published_table
from benchmarks.published.weights import load_in_order, mobilenet_v1, open_published, package_file
from fixres.models.precision import choose_device, choose_precision
from fixres.pipelines.spec import InputError
from tests.coded import write_coded_folder

_PRECISION = choose_precision("fp32", choose_device("cpu"))


def write_pictures(root: Path, num: int = 10) -> Path:
    """Pictures of two classes, white at the left or at the right."""
    from PIL import Image

    for synset, side in (("n01440764", 0), ("n01443537", 20)):
        (root / synset).mkdir(parents=True)
        for k in range(num):
            pixels = np.random.default_rng(k).integers(0, 90, (40, 40, 3), np.uint8)
            pixels[:, side : side + 20] += 150
            Image.fromarray(pixels).save(root / synset / f"{k}.png")
    return root


def test_tensors_are_loaded_in_order_and_compared() -> None:
    net, file = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), Path("x.pth")
    tensors = {"a.weight": torch.ones(3, 3), "a.bias": torch.zeros(3), "b.weight": torch.ones(2, 3)}
    load_in_order(net, tensors | {"b.bias": torch.tensor([5.0, 6.0])}, file)
    assert net(torch.ones(1, 3)).tolist() == [[14.0, 15.0]]
    with pytest.raises(InputError, match=r"its 3 tensors are not the network's 4 in order; .* is number 3"):
        load_in_order(net, tensors, file)
    swapped = {"a.weight": tensors["a.weight"], "b.weight": tensors["b.weight"], "a.bias": tensors["a.bias"]}
    with pytest.raises(InputError, match="the first difference is number 1"):
        load_in_order(net, swapped | {"b.bias": torch.zeros(2)}, file)


def test_a_package_that_cannot_be_installed_ends_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: shutil.os.path.realpath("/bin/false"))
    with pytest.raises(InputError, match=r"some_model cannot be installed into .* give NAME=FILE instead"):
        package_file("some_model", tmp_path)
    (tmp_path / "some_model").mkdir()
    with pytest.raises(InputError, match=r"has 0 .pth files, not one"):
        package_file("some_model", tmp_path)
    with pytest.raises(InputError, match="no package is known for resnet50; give resnet50=FILE"):
        open_published("resnet50", tmp_path, _PRECISION)


def test_every_picture_is_tested_once_and_never_trained_on_then(tmp_path: Path) -> None:
    write_coded_folder(tmp_path / "coded", [(60, 60)] * 4)
    flat = tmp_path / "flat"
    flat.mkdir()
    for k, file in enumerate(sorted((tmp_path / "coded").rglob("*.jp*g"))):
        shutil.copy(file, flat / f"n01484850_shark_{k}.jpg")
    pictures = Pictures(write_pictures(tmp_path / "data"), flat, tmp_path / "work")
    assert pictures.num_tested == 20 and pictures.labels.tolist() == [0] * 10 + [1] * 10 + [2] * len(pictures.further)
    folds = [pictures.fold(number) for number in range(NUM_FOLDS)]
    assert sorted(np.concatenate([tested for _, tested in folds]).tolist()) == list(range(20))
    for chosen, tested in folds:
        assert not {*chosen} & {*tested} and {*chosen} | {*tested} == {*range(len(pictures.labels))}
    images = pictures.images(32, 0.8, tested_only=True)
    assert images.shape == (20, 32, 32, 3) and images.dtype == torch.uint8 and images.is_contiguous()
    left, right = images[:10, :, :12].float().mean(), images[:10, :, 20:].float().mean()
    assert left > right + 100  # the first class is white at the left


def test_rows_are_shuffled_without_the_short_batch() -> None:
    rows = Rows(torch.arange(10.0)[:, None], torch.arange(10), np.arange(3, 10), 8, batch_size=3, shuffle=True)
    assert len(rows) == 2
    first = [batch.labels.tolist() for batch in rows]
    rows.set_epoch(1)
    assert first != [batch.labels.tolist() for batch in rows] and len({*first[0], *first[1]}) == 6
    assert [len(batch.labels) for batch in Rows(torch.zeros(7, 1), torch.zeros(7), np.arange(7), 8, batch_size=3)] == [
        3, 3, 1,
    ]  # fmt: skip


def test_calibration_and_temperature_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])  # confidence 1 / (1 + e**-2) = 0.8808
    labels = torch.tensor([0, 1, 1, 1])
    assert calibration_error(logits, labels) == pytest.approx(abs(0.75 - 0.880797), abs=1e-6)
    assert nll(logits, labels) == pytest.approx((3 * 0.126928 + 2.126928) / 4, abs=1e-6)
    # Three of four right: the best confidence is 3/4, so logits / T are ln 3 apart.
    assert temperature(logits, labels) == pytest.approx(2 / np.log(3), rel=1e-3)


def resolution(side: int, top1: list[float], tuned: list[float] | None = None) -> dict:
    kept = {"top1": top1, "nll": [0.5] * len(top1), "calibration_error": 0.1, "variant": "none"}
    found = {"test_res": side, **kept, "activations": {"zero_share": 0.25, "distance": 0.125}}
    if tuned is not None:
        found["finetunings"] = [kept | {"variant": "classifier and BatchNorm", "top1": tuned}]
    return found


def test_a_gain_is_claimed_only_where_the_interval_excludes_zero() -> None:
    steady = [0.80, 0.81, 0.79, 0.80, 0.80]
    made = {
        "network": "net", "source": "package", "train_res": 224, "interpolation": "bicubic",
        "resolutions": [
            resolution(224, steady, steady),
            resolution(320, [0.76, 0.77, 0.75, 0.76, 0.76], [0.79, 0.80, 0.78, 0.79, 0.79]),
            resolution(448, [0.90, 0.70, 0.85, 0.76, 0.84], [0.90, 0.70, 0.85, 0.76, 0.84]),
        ],
    }  # fmt: skip
    made["resolutions"][1]["finetunings"].append(made["resolutions"][1]["finetunings"][0] | {"variant": "last block"})
    lines = conclusions(made)
    assert lines[0].startswith("As published it is best at 448 px, 2.00 times the training size: +1.0 (")
    assert lines[0].endswith("against 224 px, no certain difference.")
    assert lines[1] == (
        "320 px (1.4 times) against 224 px: -4.0 (-4.0 to -4.0) as published, -1.0 (-1.0 to -1.0) if both are "
        "fine-tuned (classifier and BatchNorm): fine-tuning for the size regains 75% of the loss."
    )
    assert lines[2].endswith("-1.0 (-1.0 to -1.0), a loss.")
    assert lines[3].endswith("as published nothing is certainly lost there.")
    table = published_table({"networks": [made], "num_tested": 5, "num_further": 2, "num_folds": 5})
    assert "| 320 px | 76.0 | 0.50 | 10.0 | 25.0 | 0.125 |" in table and "+3.0 (+3.0 to +3.0)" in table
    assert "| last block | - |  |  | 79.0 | +3.0 (+3.0 to +3.0) | 0.50 | - |  |  |" in table


def test_the_command_measures_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    net = mobilenet_v1()
    for norm in (module for module in net if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
    net(torch.randn(8, 3, 64, 64))  # statistics, without which activations vanish from layer to layer
    tensors = {f"x{k}.{key.rpartition('.')[2]}": value for k, (key, value) in enumerate(net.state_dict().items())}
    torch.save(tensors, tmp_path / "net.pth")
    data, target = write_pictures(tmp_path / "data", 5), tmp_path / "published.json"
    command = [f"mobilenetv1_025={tmp_path / 'net.pth'}", "--data", data, "--sweep", "32,64", "--epochs", "1"]
    command += ["--work-dir", tmp_path / "work", "--json", target]
    monkeypatch.setattr(sys, "argv", ["published", *map(str, command)])
    published.main()
    content = json.loads(target.read_text())
    (found,) = content["networks"]
    assert [one["test_res"] for one in found["resolutions"]] == [32, 64, 224, 320]
    assert ["finetunings" in one for one in found["resolutions"]] == [False, True, True, True]
    names = [one["variant"] for one in found["resolutions"][1]["finetunings"]]
    assert names == ["classifier", "classifier and BatchNorm", "BatchNorm statistics, no labels",
                     "Fréchet map, no labels", "temperature"]  # fmt: skip
    assert found["resolutions"][2]["activations"]["distance"] == 0.0
    assert published_table(content) in capsys.readouterr().out
    monkeypatch.setattr("benchmarks.published.measurement.Measurement.at", None)  # nothing is measured again
    published.main()
    assert json.loads(target.read_text())["networks"] == content["networks"]

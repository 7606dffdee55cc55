"""Extraction: values against timm's own functions, equal runs, killed and resumed runs, scores as from images."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fixres.config.jobs import ExtractJob
from fixres.evaluation import features
from fixres.evaluation.accuracy import measure
from fixres.evaluation.features import Extraction, extract
from fixres.evaluation.predictions import open_softmax, score_softmax
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize
from fixres.models.predictor import Predictor
from fixres.models.pretrained import open_chosen
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import EvalCrop, InputError, Loader, LoaderConfig
from tests.fixres.conftest import CPU, TINY

CLASSES = ("class_00", "class_01")
ARRAYS = ("embeddings.npy", "softmax.npy", "labels.npy")
FILES = {*ARRAYS, "extraction.json", "names.json"}
NAMES = [f"{number}.jpg" for number in range(24)]


@pytest.fixture
def checkpoint(tiny_net: nn.Module, tmp_path: Path) -> Path:
    # A new network gives all images nearly the same scores.
    tiny_net.train()(torch.randn(8, 3, 32, 32))
    nn.init.normal_(tiny_net.fc.weight, generator=torch.Generator().manual_seed(2))
    save_checkpoint(tmp_path / "net.pt", tiny_net, CheckpointInfo(TINY.name, TINY.kwargs, CLASSES, 32, 32, 0.875))
    return tmp_path / "net.pt"


def run(checkpoint: Path, folder: Path, output: Path, on_batch: Callable | None = None, **fields: object) -> Extraction:
    """Extracts from the images of `folder`; `on_batch` gets the number of batches delivered."""

    def open_it(split: str, **values: object) -> Loader:
        loader = open_loader("torch", LoaderConfig(path=folder, num_workers=0, **values))
        if on_batch is not None:
            original = loader._deliveries

            def watched(*iteration: int) -> Iterator:
                for count, delivery in enumerate(original(*iteration)):
                    on_batch(count)
                    yield delivery

            loader._deliveries = watched
        return loader

    job = ExtractJob(model=str(checkpoint), output=output, batch_size=5, device="cpu", precision="fp32", **fields)
    return extract(job, open_chosen(job, CLASSES), open_it, NAMES)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_hold_what_timm_computes(
    checkpoint: Path, coded_folder: Path, tiny_net: nn.Module, tmp_path: Path
) -> None:
    done = run(checkpoint, coded_folder, tmp_path / "a")
    assert (done.num_images, done.num_kept) == (24, 0)
    embeddings, softmax, labels = (np.load(tmp_path / "a" / name) for name in ARRAYS)
    config = LoaderConfig(coded_folder, EvalCrop(), 32, 24, num_workers=0)
    with open_loader("torch", config) as loader, torch.inference_mode():
        (batch,) = loader
        features = tiny_net.eval().forward_head(tiny_net.forward_features(Normalize()(batch.images)), pre_logits=True)
        np.testing.assert_allclose(embeddings, features.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(softmax, tiny_net.fc(features).softmax(1).numpy(), rtol=1e-4, atol=1e-6)
    assert embeddings.dtype == softmax.dtype == np.float32 and labels.dtype == np.int64
    assert labels.tolist() == [0] * 12 + [1] * 12
    record = json.loads((tmp_path / "a" / "extraction.json").read_text())
    assert (record["num_images"], record["resolution"], record["classes"]) == (24, 32, list(CLASSES))
    assert json.loads((tmp_path / "a" / "names.json").read_text()) == NAMES
    assert set(contents(tmp_path / "a")) == FILES


def test_two_runs_are_equal_and_half_precision_is_close(checkpoint: Path, coded_folder: Path, tmp_path: Path) -> None:
    run(checkpoint, coded_folder, tmp_path / "a")
    run(checkpoint, coded_folder, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    run(checkpoint, coded_folder, tmp_path / "half", dtype="float16")
    for name in ARRAYS[:2]:
        half = np.load(tmp_path / "half" / name)
        assert half.dtype == np.float16
        np.testing.assert_allclose(half, np.load(tmp_path / "a" / name), rtol=2e-3, atol=1e-4)
    with pytest.raises(InputError, match="exists; replace it with --overwrite, or choose another name"):
        run(checkpoint, coded_folder, tmp_path / "a")


def _kill(count: int) -> None:
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_extraction_is_resumed_with_equal_bytes(checkpoint: Path, coded_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    child = os.fork()
    if child == 0:
        try:
            features._SECONDS_BETWEEN_NOTES = 0.0
            run(checkpoint, coded_folder, output, _kill)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not output.exists() and (tmp_path / ".killed.journal").exists()
    with pytest.raises(InputError, match=r"other settings \(resolution: 32 instead of 48\).*--restart$"):
        run(checkpoint, coded_folder, output, test_res=48)
    with pytest.raises(InputError, match=r"other settings \(dtype: float32 instead of float16\)"):
        run(checkpoint, coded_folder, output, dtype="float16")
    seen: list[int] = []
    done = run(checkpoint, coded_folder, output, seen.append)
    assert done.num_kept == 15 and len(seen) == 2  # 24 images in batches of 5, killed at the delivery of the fourth
    run(checkpoint, coded_folder, tmp_path / "whole")
    assert contents(output) == contents(tmp_path / "whole")
    assert not (tmp_path / ".killed.journal").exists() and not (tmp_path / ".killed.partial").exists()


def test_an_interrupted_extraction_can_be_restarted(checkpoint: Path, coded_folder: Path, tmp_path: Path) -> None:
    def interrupt(count: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, coded_folder, tmp_path / "a", interrupt)
    secret = tmp_path / "secret"
    secret.write_text("keep me")
    (tmp_path / ".a.partial" / "softmax.npy").unlink()
    (tmp_path / ".a.partial" / "softmax.npy").symlink_to(secret)
    assert run(checkpoint, coded_folder, tmp_path / "a", restart=True, test_res=40).num_kept == 0
    assert json.loads((tmp_path / "a" / "extraction.json").read_text())["resolution"] == 40
    assert secret.read_text() == "keep me" and not (tmp_path / "a" / "softmax.npy").is_symlink()


def test_scores_from_files_equal_scores_from_images(
    checkpoint: Path, coded_folder: Path, tiny_net: nn.Module, tmp_path: Path
) -> None:
    run(checkpoint, coded_folder, tmp_path / "a")
    config = LoaderConfig(coded_folder, EvalCrop(), 32, 7, num_workers=0)
    with open_loader("torch", config) as loader:
        result, scores = measure(Predictor(tiny_net, Normalize(), CPU), loader)
    stored, same = score_softmax([open_softmax(tmp_path / "a")])
    assert 0 < result.top1 < 1
    assert (stored.top1, stored.top5, stored.class_mean_top1) == (result.top1, result.top5, result.class_mean_top1)
    assert stored.loss == pytest.approx(result.loss, rel=1e-5) and stored.test_res == 32
    assert (same.predictions == scores.predictions).all() and (same.ranks == scores.ranks).all()


def test_an_ensemble_is_the_mean_of_the_probabilities(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, 5000)
    parts = [generator.dirichlet(np.ones(6), 5000).astype(np.float32) for _ in range(3)]
    for number, part in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", part)
    np.save(tmp_path / "labels.npy", labels)
    result, _ = score_softmax([open_softmax(tmp_path / f"{number}.npy") for number in range(3)])
    mean = np.mean([part.astype(np.float64) for part in parts], axis=0)
    assert result.top1 == (mean.argmax(1) == labels).mean()
    assert result.loss == pytest.approx(-np.log(mean[np.arange(5000), labels]).mean(), rel=1e-5)


def _spoil(kind: str, folder: Path, softmax: np.ndarray, labels: np.ndarray) -> None:
    match kind:
        case "logits":
            softmax = np.log(softmax)
        case "nan":
            softmax[3, 1] = np.nan
        case "sum":
            softmax[4] *= 1.1
        case "shape":
            softmax = softmax[:, 0]
        case "whole numbers":
            softmax = softmax.astype(int)
        case "a class less":
            softmax = softmax[:, :1] / softmax[:, :1]
        case "an image less":
            softmax = softmax[:-1]
        case "float labels":
            labels = labels.astype(float)
        case "objects":
            labels = labels.astype(object)
    np.save(folder / "softmax.npy", softmax)
    np.save(folder / "labels.npy", labels)
    if kind == "no labels":
        (folder / "labels.npy").unlink()
    if kind == "truncated":
        (folder / "softmax.npy").write_bytes((folder / "softmax.npy").read_bytes()[:100])
    if kind == "picture":
        (folder / "softmax.npy").write_bytes(b"\xff\xd8\xff\xe0" * 100)
    if kind == "names":
        (folder / "names.json").write_text('["a"]')


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("logits", r"image 0 are below 0 or sum to .*not 1; give softmax, not logits"),
        ("nan", "image 3 has numbers that are not finite"),
        ("sum", r"image 4 are below 0 or sum to 1\.1, not 1"),
        ("shape", r"softmax is float \(images, classes\)"),
        ("whole numbers", r"softmax is float \(images, classes\)"),
        ("a class less", "labels from 0 to 1, .* 1 classes"),
        ("an image less", "has 9 images, .*labels.npy 10"),
        ("float labels", "labels are whole numbers"),
        ("objects", r"labels\.npy: not a \.npy file, or damaged"),
        ("no labels", r"has no labels: .*labels\.npy is missing"),
        ("truncated", r"softmax\.npy: not a \.npy file, or damaged"),
        ("picture", r"softmax\.npy: not a \.npy file, or damaged"),
        ("names", "does not name the 10 images"),
        ("missing", "no such file"),
    ],
)
def test_bad_softmax_files_are_refused_in_one_line(kind: str, message: str, tmp_path: Path) -> None:
    softmax = np.full((10, 2), 0.5, np.float32)
    softmax[:, 0] += np.linspace(0, 0.2, 10)
    softmax[:, 1] = 1 - softmax[:, 0]
    folder = tmp_path / "f"
    folder.mkdir()
    if kind != "missing":
        _spoil(kind, folder, softmax, np.arange(10) % 2)
    with pytest.raises(InputError, match=message) as caught:
        score_softmax([open_softmax(folder)])
    assert "\n" not in str(caught.value)


def test_only_files_of_the_same_images_are_averaged(tmp_path: Path) -> None:
    for name, num, label in (("a", 4, 0), ("b", 5, 0), ("c", 4, 1)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "softmax.npy", np.full((num, 2), 0.5, np.float32))
        np.save(tmp_path / name / "labels.npy", np.full(num, label))
    a, b, c = (open_softmax(tmp_path / name) for name in "abc")
    with pytest.raises(InputError, match=r"has 4 images of 2 classes, .* 5 of 2; average only"):
        score_softmax([a, b])
    with pytest.raises(InputError, match="are of other images or classes"):
        score_softmax([a, c])


def test_a_replaced_image_or_other_classes_stop_the_extraction(
    checkpoint: Path, coded_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(coded_folder, folder)
    broken = sorted(folder.glob("*/*.jpg"))[7]
    broken.write_bytes(b"no picture")

    def open_it(split: str, **values: object) -> Loader:
        return open_loader("torch", LoaderConfig(path=folder, num_workers=0, on_bad="replace", **values))

    job = ExtractJob(model=str(checkpoint), output=tmp_path / "a", batch_size=5, device="cpu", precision="fp32")
    with pytest.raises(InputError, match="images were replaced or reordered"):
        extract(job, open_chosen(job, CLASSES), open_it)
    with pytest.raises(InputError, match="give data of the classes it was trained on"):
        open_chosen(job, ("cat", "dog"))
    assert not (tmp_path / "a").exists()

"""Every engine resizes with the filter that the crop asks for; "random" is a pure function of seed, epoch and index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.pipelines.formats.beton_writer import write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import EvalCrop, InputError, ShiftCrop, TrainCrop
from tests.pipelines.loaders.loading import collect, config
from tests.pipelines.roc.conftest import photo

SIDE, NUM, RESOLUTION = 100, 12, 40
WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0}
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SHARING = [("torch", "folder"), ("roc", "beton"), ("roc-dali", "beton"), ("dali-slice", "folder")]
INF = float("inf")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same JPEG files in a folder and in a RoC file."""
    root = tmp_path_factory.mktemp("photos")
    fields = [encode(photo(SIDE, SIDE, seed), RocQuality(subsampling="4:4:4")) for seed in range(NUM)]
    (root / "folder" / "only").mkdir(parents=True)

    def samples() -> Iterator[EncodedSample]:
        for number, (jpeg, record) in enumerate(fields):
            (root / "folder" / "only" / f"{number:02}.jpg").write_bytes(jpeg)
            yield EncodedSample(jpeg, SIDE, SIDE, 0, number, (record,))

    write_beton(root / "x.beton", samples(), NUM, classes=["only"], extra_fields=("roc",))
    return {"folder": root / "folder", "beton": root / "x.beton"}


def pillow(stored: dict[str, Path], edges: tuple[float, ...], interpolation: str) -> np.ndarray:
    """int64 (N, r, r, 3): Pillow's resize of a box (left, top, right, bottom) of all images."""
    files = sorted((stored["folder"] / "only").iterdir())
    size = (RESOLUTION, RESOLUTION)
    return np.array([np.asarray(Image.open(one).resize(size, FILTERS[interpolation], edges)) for one in files], int)


def images_of(engine: str, path: Path, epoch: int = 0, **changes: object) -> np.ndarray:
    """int64 (N, r, r, 3): an epoch's images in the order of the files."""
    if "dali" in engine:
        pytest.importorskip("nvidia.dali")
    with open_loader(engine, config(path, **{"resolution": RESOLUTION, "min_zoom": INF} | changes)) as loader:
        loader.set_epoch(epoch)
        return collect(loader).by_index().astype(int)


def differences(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 (N,): mean difference of each image in gray levels."""
    return np.abs(images - others).mean(axis=(1, 2, 3))


@pytest.mark.parametrize(("engine", "kind"), [*SHARING, ("dali", "folder")])
def test_center_crops_are_bicubic(engine: str, kind: str, stored: dict[str, Path]) -> None:
    images = images_of(engine, stored[kind], crop=EvalCrop(0.8, interpolation="bicubic"))
    margin = SIDE * 0.1
    edges = (margin, margin, SIDE - margin, SIDE - margin)
    assert differences(images, pillow(stored, edges, "bicubic")).max() <= 0.5
    assert differences(images, pillow(stored, edges, "bilinear")).min() > 1


@pytest.mark.parametrize(("engine", "kind"), SHARING)
def test_random_filters_are_those_of_the_sampling(engine: str, kind: str, stored: dict[str, Path]) -> None:
    crop, whole = TrainCrop(**WHOLE, interpolation="random"), (0, 0, SIDE, SIDE)
    for epoch in (0, 1):
        images = images_of(engine, stored[kind], epoch, crop=crop)
        bicubic = crop_boxes(crop, 3, epoch, np.arange(NUM), np.full((NUM, 2), SIDE), RESOLUTION).bicubic
        wanted = np.where(
            bicubic[:, None, None, None], pillow(stored, whole, "bicubic"), pillow(stored, whole, "bilinear")
        )
        assert 0 < bicubic.sum() < NUM and differences(images, wanted).max() <= 0.5


def test_dali_draws_the_filter_itself(stored: dict[str, Path]) -> None:
    images = images_of("dali", stored["folder"], crop=TrainCrop(**WHOLE, interpolation="random"))
    both = np.array([differences(images, pillow(stored, (0, 0, SIDE, SIDE), one)) for one in FILTERS])
    assert both.min(axis=0).max() <= 0.5 and both.max(axis=0).min() > 1
    assert set(both.argmin(axis=0)) == {0, 1}


def test_ffcv_and_unknown_filters_are_refused(stored: dict[str, Path]) -> None:
    pytest.importorskip("ffcv")
    with pytest.raises(InputError, match="interpolation='bicubic'; choose --engine roc"):
        open_loader("ffcv", config(stored["beton"], crop=EvalCrop(interpolation="bicubic")))
    for crop in (EvalCrop, ShiftCrop):
        with pytest.raises(InputError, match="interpolation"):
            crop(interpolation="random")
    with pytest.raises(InputError, match="interpolation"):
        TrainCrop(interpolation="lanczos")

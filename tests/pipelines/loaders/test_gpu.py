"""Batches on a GPU are those on the CPU, at two resolutions one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.pipelines.loaders import is_installed, open_loader
from fixres.pipelines.spec import EvalCrop
from tests.pipelines.loaders import loading
from tests.pipelines.loaders.loading import TRAIN, config

HOST = [("roc", "roc"), ("roc", "beton"), ("torch", "folder"), ("ffcv", "beton")]
DALI = [("roc-dali", "roc"), ("dali-slice", "folder"), ("dali-slice", "beton"), ("dali", "folder"), ("dali", "shards")]
DEVICES = [
    "cpu",  # tests the test
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, coded_folder: Path, coded_sizes: list) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stored")
    return {
        "folder": coded_folder,
        "beton": loading.write_coded_beton(root / "coded.beton", coded_sizes),
        "roc": loading.write_coded_roc(root / "coded_roc.beton", coded_sizes),
        "shards": loading.write_coded_shards(root / "shards", coded_sizes),
    }


def epochs(engine: str, path: Path, **settings: object) -> list[np.ndarray]:
    """Images, labels and indices of each batch; on a GPU a kernel is queued after each, as in training."""
    found = []
    with open_loader(engine, config(path, **settings)) as loader:
        for epoch, resolution in enumerate((48, 64)):
            loader.set_epoch(epoch)
            loader.set_resolution(resolution)
            for batch in loader:
                assert {part.device.type for part in batch} == {torch.device(loader.config.device).type}
                loading.check(batch, resolution)
                found += [part.clone() for part in batch]
    return [part.cpu().numpy() for part in found]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("crop", [TRAIN, EvalCrop()])
@pytest.mark.parametrize(("engine", "kind"), HOST + DALI)
def test_batches_are_those_of_the_cpu(
    engine: str, kind: str, crop: object, device: str, stored: dict[str, Path]
) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    if crop is TRAIN and engine in ("ffcv", "dali"):
        pytest.skip("it draws its own crops")
    settings = {"crop": crop, "shuffle": True, "num_workers": 2, "min_zoom": float("inf")}
    there, here = (epochs(engine, stored[kind], device=place, **settings) for place in (device, "cpu"))
    assert len(there) == len(here) == 2 * 5 * 3
    for number, (one, other) in enumerate(zip(there, here, strict=True)):
        if number % 3 or (engine, kind) in HOST:
            assert np.array_equal(one, other)
        else:  # nvJPEG's inverse transform differs
            assert np.abs(one.astype(int) - other).mean() < 2

"""Shifted crops: the same boxes in every engine with our boxes; the other engines refuse them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.loaders import is_installed, open_loader
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import InputError, ShiftCrop
from tests.coded import write_coded_folder
from tests.pipelines.loaders.loading import check_boxes, collect, config, write_coded_beton, write_coded_roc

SIZES = [(96, 160), (200, 90), (101, 101), (64, 250), (120, 300), (90, 100), (180, 240)]
CROP = ShiftCrop(crop_pct=0.7)


@pytest.mark.parametrize("engine", ["torch", "roc", "dali-slice", "roc-dali"])
def test_engines_show_the_shifted_boxes(engine: str, tmp_path: Path) -> None:
    if not is_installed(engine):
        pytest.skip("DALI is not installed")
    write = write_coded_roc if engine.startswith("roc") else write_coded_beton
    path, num_workers = write(tmp_path / "x.beton", SIZES), 0 if engine == "torch" else 1
    with open_loader(engine, config(path, crop=CROP, shuffle=True, batch_size=3, num_workers=num_workers)) as loader:
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            expected = [indices.tolist() for indices in loader.index_batches()]
            assert loader.counters.num_images == epoch * len(SIZES)  # asking for the order reads nothing
            seen = collect(loader)
            assert [len(indices) for indices in expected] == seen.batch_sizes == [3, 3, 1]
            assert [index for indices in expected for index in indices] == seen.indices.tolist()
            chosen = crop_boxes(CROP, 3, epoch, np.arange(len(SIZES)), np.array(SIZES), 48)
            check_boxes(seen, np.array(SIZES), chosen.yxhw, chosen.flip)


@pytest.mark.parametrize("engine", ["ffcv", "dali"])
def test_engines_with_their_own_crops_refuse(engine: str, tmp_path: Path) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    path = write_coded_beton(tmp_path / "x.beton", SIZES) if engine == "ffcv" else write_coded_folder(tmp_path, SIZES)
    with pytest.raises(InputError, match=f"engine=.{engine}. draws its own crops and cannot shift them") as caught:
        open_loader(engine, config(path, crop=CROP))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("crop_pct", [0.0, 1.5])
def test_impossible_shifts(crop_pct: float) -> None:
    with pytest.raises(InputError, match="crop_pct"):
        ShiftCrop(crop_pct)

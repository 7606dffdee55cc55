"""Engines agree on odd JPEG files: those in a folder, and what the converter makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.conversion.verification import verify_data
from fixres.pipelines.formats.beton_writer import write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.images.codec import image_size
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import InputError
from tests.pipelines.images.odd_jpegs import ODD, PLAIN
from tests.pipelines.loaders.loading import collect, config

_REFUSED_BY_DALI = "bytes between headers"  # in one line, as tests/pipelines/loaders/test_bad.py has it
FILES = {**PLAIN, **ODD, "bytes behind": PLAIN["4:2:0"] + b"\0" * 4096}
WAYS = [
    ("dali", "folder"),
    ("dali-slice", "folder"),
    ("roc", "ffcv"),
    ("dali-slice", "ffcv"),
    ("roc", "roc"),
    ("dali", "webdataset"),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("odd")
    paths = {"folder": root / "images"}
    (paths["folder"] / "a").mkdir(parents=True)
    for number, data in enumerate(FILES.values()):
        (paths["folder"] / "a" / f"{number:02d}.jpg").write_bytes(data)
    refused = paths["folder"] / "a" / f"{list(FILES).index(_REFUSED_BY_DALI):02d}.jpg"
    for format in ("ffcv", "roc", "webdataset"):
        paths[format] = root / format
        done = convert(paths["folder"], paths[format], ConversionConfig(format, num_workers=0, progress=False))
        assert done.num_passed == (0 if format == "roc" else len(PLAIN))
    refused.unlink()
    return paths


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_engines_give_pillows_pixels(way: tuple[str, str], stored: dict[str, Path]) -> None:
    if "dali" in way[0]:
        pytest.importorskip("nvidia.dali")
    path, seen = stored[way[1]], {}
    for engine in ("torch", way[0]):
        loader = open_loader(engine, config(path, resolution=32, num_workers=int(engine != "torch")))
        seen[engine] = collect(loader).by_index().astype(int)
        loader.close()
    difference = np.abs(seen["torch"] - seen[way[0]])
    assert difference.max() <= 8 and difference.mean((1, 2, 3)).max() < 0.7


def test_verify_reports_a_file_that_engines_refuse(tmp_path: Path, stored: dict[str, Path]) -> None:
    """Files of stock FFCV may hold such JPEGs."""
    assert "without damage" in verify_data(stored["ffcv"], 0, progress=False)
    data = ODD["RGB by Adobe"]
    write_beton(tmp_path / "x.beton", [EncodedSample(data, *image_size(data, ""), 0, 0)], 1, ("a",))
    with pytest.raises(InputError, match=r"1 of 1 samples are damaged.* that the engines decode differently"):
        verify_data(tmp_path / "x.beton", 0, progress=False)

"""`verify_data` finds damage everywhere, also in the coarser levels of RoC records."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.conversion.verification import verify_data
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.roc.layout import describe
from fixres.pipelines.spec import InputError
from tests.coded import write_coded_folder


@pytest.fixture(scope="module", params=["roc", "ffcv", "webdataset"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = write_coded_folder(tmp_path_factory.mktemp("in") / "x", [(220 + i, 250) for i in range(20)])
    dest = tmp_path_factory.mktemp(request.param) / "x"
    convert(folder, dest, ConversionConfig(request.param, num_workers=0, progress=False))
    return request.param, dest


def test_undamaged_data_is_counted(made: tuple[str, Path]) -> None:
    line = verify_data(made[1], num_workers=2, progress=False)
    assert line == f"{made[1]}: 20 images without damage; 2 classes with 10 to 10 images"


def test_a_block_of_zeros_is_found(made: tuple[str, Path], tmp_path: Path) -> None:
    format, dest = made
    copy = tmp_path / "x"
    shutil.copytree(dest, copy) if dest.is_dir() else shutil.copy(dest, copy)
    file = copy / "shard-000000.tar" if format == "webdataset" else copy
    data = bytearray(file.read_bytes())
    # At the start of a file: zeros in the middle of its data are a valid image of something else to every decoder.
    start = data.index(b"\xff\xd8\xff", len(data) // 2 if format == "webdataset" else 8 << 20)
    data[start : start + 400] = bytes(400)
    file.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"1 of 20 samples are damaged, the first is .*; convert again"):
        verify_data(copy, num_workers=0, progress=False)


def test_a_flipped_bit_in_a_coarse_level_is_found(made: tuple[str, Path], tmp_path: Path) -> None:
    format, dest = made
    if format != "roc":
        pytest.skip("RoC records only")
    reader = BetonReader(dest)
    start, _ = reader.field_spans("roc")[13]
    levels = describe(bytes(reader.field_bytes("roc", 13)), int(reader.image_spans[13, 1]), *map(int, reader.sizes[13]))
    data = np.frombuffer(dest.read_bytes(), np.uint8).copy()
    data[start + levels[1]["start"] + levels[1]["header_size"] + 40] ^= 0xFF
    (tmp_path / "x").write_bytes(data.tobytes())
    with pytest.raises(
        InputError, match=r"1 of 20 samples are damaged, the first is .*sample 13: its JPEG data is corrupt"
    ):
        verify_data(tmp_path / "x", num_workers=0, progress=False)

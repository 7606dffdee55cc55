"""The devkit's table is read in both byte orders, as scipy reads it; errors name the damage."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from fixres.pipelines.sources.imagenet.matfile import MatError, read_structs
from tests.pipelines.sources.miniatures import mat_file

ROWS = [(1, "n02119789", "kit fox, Vulpes macrotis", 0.0), (300, "n1", "é", 0.0), (7, "abc", "", 16.0)]
WANTED = [(1.0, "n02119789"), (300.0, "n1"), (7.0, "abc")]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_rows_are_read_as_written(order: str, compress: bool) -> None:
    data = mat_file(ROWS, order, compress)
    assert read_structs(data, "synsets", ("ILSVRC2012_ID", "WNID")) == WANTED
    assert read_structs(data, "synsets", ("words", "children", "num_children")) == [
        ("kit fox, Vulpes macrotis", None, 0.0),
        ("é", None, 0.0),
        ("", None, 16.0),
    ]


def test_scipy_reads_our_test_file_and_we_read_scipys() -> None:
    table = loadmat(io.BytesIO(mat_file(ROWS)), squeeze_me=True)["synsets"]
    assert [(float(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in table] == WANTED
    dtype = [("ILSVRC2012_ID", object), ("WNID", object)]
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(WANTED, dtype).reshape(-1, 1)}, do_compression=True)
    assert read_structs(buffer.getvalue(), "synsets", ("ILSVRC2012_ID", "WNID")) == WANTED


@pytest.mark.parametrize(
    ("data", "variable", "message"),
    [
        (b"", "synsets", "not a MATLAB 5 file"),
        (b"\x89HDF" + bytes(200), "synsets", "not a MATLAB 5 file"),
        (mat_file(ROWS), "other", "no variable 'other'"),
        (mat_file(ROWS), "answer", "is not a struct array"),
        (mat_file(ROWS)[:-20], "synsets", "ends early|cut off"),
        (mat_file(ROWS, compress=False)[:-20], "synsets", "ends early"),
    ],
)
def test_damage_is_reported(data: bytes, variable: str, message: str) -> None:
    with pytest.raises(MatError, match=message):
        read_structs(data, variable, ("WNID",))


def test_a_cell_that_ends_early_is_reported() -> None:
    data = bytearray(mat_file([(1, "n02119789", "", 0.0)], compress=False))
    place = data.index("n02119789".encode("utf-16-le")) - 8
    data[place - 48 : place - 40] = bytes([14, 0, 0, 0, 64, 0, 0, 0])
    for size in (8, 16, 40):
        data[place - 44] = size
        with pytest.raises(MatError, match="ends early"):
            read_structs(bytes(data), "synsets", ("WNID", "children"))


def test_missing_field_is_reported() -> None:
    with pytest.raises(MatError, match="has no field 'gloss'"):
        read_structs(mat_file(ROWS), "synsets", ("gloss",))


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.pipelines.sources.imagenet.matfile._MAX_BYTES", 100)
    with pytest.raises(MatError, match="unpacks to more than"):
        read_structs(mat_file(ROWS), "synsets", ("WNID",))


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_changed_bytes_end_in_an_error_or_rows(data: st.DataObject) -> None:
    content = bytearray(mat_file(ROWS, compress=False))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(120, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        rows = read_structs(bytes(content), "synsets", ("ILSVRC2012_ID", "WNID"))
    except MatError:
        return
    assert all(len(row) == 2 for row in rows)

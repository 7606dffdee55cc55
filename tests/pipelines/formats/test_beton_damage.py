"""Damaged .beton files are refused in one line or are readable; no access goes outside of the file.

FIXRES_FUZZED=25000 tries 25,000 files of our writer and as many of ffcv's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.formats import beton_layout as layout
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.beton_writer import BetonWriter, write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.spec import InputError
from tests.coded import coded_image
from tests.pipelines.formats.beton_files import CLASSES, ROW, START, samples

NUM = int(os.environ.get("FIXRES_FUZZED", "2500"))  # damaged files of each writer


def fuzzed(path: Path, num: int, seed: int) -> Iterator[str]:
    """Damages the file in place, yields a description, and repairs it; `num` times.

    Half of the edits set sizes, counts and positions to values near the limits of what fits; the others change any
    byte of the tables.
    """
    generator = np.random.default_rng(seed)
    reader, size = BetonReader(path), path.stat().st_size
    num_fields = len(reader.field_names)
    start = layout.metadata_start(num_fields)
    row = layout.metadata_dtype(reader._types).itemsize
    tables = [(0, 60), (24 + 1041, 20), (start, row * len(reader) + 80), (size - 24 * 10 * (num_fields - 1), 240)]
    numbers = [(2, 2), (4, 4), (8, 8), (16, 8), (24, 1), (24 + 1041, 1), (49, 8), (57, 8)]
    numbers += [
        (start + row * i + at, width) for i in range(3) for at, width in ((0, 1), (1, 2), (3, 2), (5, 8), (16, 8))
    ]
    numbers += [(size - 24 * k + at, 8) for k in range(1, 4) for at in (8, 16)]
    borders = [0, 1, 2, 255, size - 1, size, size + 1, size - 24, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1]
    with open(path, "r+b", buffering=0) as file:
        for _ in range(num):
            if generator.random() < 0.5:
                position, width = numbers[generator.integers(len(numbers))]
                value = borders[generator.integers(len(borders))] + int(generator.integers(-2, 3))
                new = (value % (1 << (8 * width))).to_bytes(width, "little")
            else:
                first, length = tables[generator.integers(len(tables))]
                position, new = first + int(generator.integers(length)), generator.bytes(int(generator.integers(1, 5)))
            old = os.pread(file.fileno(), len(new), position)
            os.pwrite(file.fileno(), new, position)
            yield f"{new.hex()} at {position}"
            os.pwrite(file.fileno(), old, position)
            os.ftruncate(file.fileno(), size)


def everything(reader: BetonReader) -> tuple:
    stored = [(reader.read(i), bytes(reader.field_bytes("roc", i))) for i in range(len(reader))]
    return reader.classes, reader.labels.tolist(), reader.sizes.tolist(), stored


def test_damaged_tables_of_our_files_are_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    write_beton(path, samples(extra=True), 10, CLASSES, ["roc"])
    whole, num_refused = everything(BetonReader(path)), 0
    for edit in fuzzed(path, NUM, seed=1):
        try:
            found = everything(BetonReader(path))
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            num_refused += 1
        else:
            assert found == whole, edit
    assert num_refused > 0.8 * NUM


@pytest.mark.parametrize("at", range(layout.INFO_POINTER.itemsize))
def test_a_damaged_mark_does_not_turn_off_class_names_and_checksum(at: int, tmp_path: Path) -> None:
    """Our files without it would look like ffcv's, which have neither."""
    path = tmp_path / "x.beton"
    write_beton(path, samples(), 10, CLASSES)
    position = layout.HEADER.itemsize + layout.DESCRIPTOR.fields["arguments"][1] + at
    content = path.read_bytes()
    for bit in range(8):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
        with pytest.raises(InputError, match="damaged"):
            BetonReader(path)
    begin = position - at
    path.write_bytes(content[:begin] + bytes(layout.INFO_POINTER.itemsize) + content[begin + 28 :])
    with pytest.raises(InputError, match="class names cannot be found"):
        BetonReader(path)


def test_damaged_tables_of_ffcv_never_lead_outside(tmp_path: Path) -> None:
    """Without a checksum damage may be unnoticed, but the only possible error is InputError."""
    path = tmp_path / "x.beton"
    write_beton(path, samples(extra=True), 10, extra_fields=["roc"])
    num_refused = 0
    for edit in fuzzed(path, NUM, seed=2):
        try:
            reader = BetonReader(path)
            for i in range(min(len(reader), 20)):
                assert len(reader.image_bytes(i)) == reader.image_spans[i, 1], edit
                bytes(reader.field_bytes("roc", i)) if "roc" in reader.field_names else None
                reader.pixels(i)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error), edit
            num_refused += 1
    assert num_refused > 0.4 * NUM


@pytest.mark.parametrize(
    ("position", "dtype", "value", "message"),
    [
        (0, "<u2", 1, "format version 1 instead of 2"),
        (2, "<u2", 0, "0 fields"),
        (4, "<u4", 3 << 20, "page size 3145728 is not a power of two"),
        (8, "<u8", 0, "no samples"),
        (8, "<u8", 1 << 60, "ends within the metadata"),
        (16, "<u8", 64, "allocation table is not where"),
        (24, "u1", 200, "unknown type 200"),
        (24, "u1", layout.TYPE_INT, "no field 'image' of the right type"),
        (24 + 1041 + 1, "S5", b"image", "no valid names"),
        (START, "u1", 2, "sample 0: stored in an unknown mode"),
        (START + 1, "<u2", 0, "sample 0: an image without pixels"),
        (START + 1, "<u2", 60000, "sample 0: its image has too few bytes"),
        (START + ROW + 5, "<u8", (8 << 20) + 1, "sample 1: its image is not in the allocation table"),
        (START + 16, "<i8", -1, "sample 0: its label is not a class number"),
        (START + 16, "<i8", 1 << 40, "sample 0: its label is not a class number"),
        (START + 24, "<u8", 1 << 63, "sample 0: its field 'about' lies outside"),
        (START + 24, "<u8", START, "sample 0: its field 'about' lies outside"),
        (START + 32, "<u8", 1 << 63, "sample 0: its field 'about' lies outside"),
    ],
)
def test_each_check_has_its_own_message(
    position: int, dtype: str, value: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MODE_JPG", layout.MODE_RAW)  # the writer's images are raw pixels then
    pixels = [coded_image(8, 8, i).tobytes() for i in range(2)]
    rows = [EncodedSample(data, 8, 8, i, i, (b"about",)) for i, data in enumerate(pixels)]
    with BetonWriter(tmp_path / "x.beton", 2, extra_fields=["about"]) as writer:
        for row in rows:
            writer.write(row)
        writer.finish()
    assert BetonReader(tmp_path / "x.beton").image_bytes(1) == pixels[1]
    with open(tmp_path / "x.beton", "r+b") as file:
        file.seek(position)
        file.write(np.array(value, dtype).tobytes())
    with pytest.raises(InputError, match=message):
        BetonReader(tmp_path / "x.beton")


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    write_beton(tmp_path / "whole.beton", samples(), 10, CLASSES)
    data = (tmp_path / "whole.beton").read_bytes()
    for length in [0, 1, 23, 24, 1000, 24 + 1041, 3000, 1 << 23, len(data) - 240, len(data) - 24, len(data) - 1]:
        (tmp_path / "cut.beton").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut\.beton: .*convert the data again"):
            BetonReader(tmp_path / "cut.beton")


@pytest.mark.parametrize(("kind", "message"), [("missing", "does not exist"), ("folder", "is a folder")])
def test_a_missing_or_empty_file_is_named(kind: str, message: str, tmp_path: Path) -> None:
    if kind == "folder":
        (tmp_path / "x.beton").mkdir()
    with pytest.raises(InputError, match=rf"x\.beton {message}"):
        BetonReader(tmp_path / "x.beton")

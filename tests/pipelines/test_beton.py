""".beton files: ffcv reads ours, we read ffcv's, and damaged ones end in one line."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines import beton_format as layout
from pipelines.beton import BetonReader
from pipelines.beton_writer import BetonWriter, write_beton
from pipelines.images import EncodedSample, decode_rgb
from pipelines.sources import open_source
from pipelines.spec import BadSampleError, InputError, Source
from tests.coded import coded_image, jpeg

CLASSES = ("cat", "dog", "küche")
START = layout.metadata_start(3)  # of the metadata in files with fields image, label and bytes
ROW = 40  # bytes of a sample in it
SIZES = [(20 + 3 * i, 34 - 2 * i) for i in range(10)]


def samples(num: int = len(SIZES), extra: bool = False) -> list[EncodedSample]:
    return [
        EncodedSample(jpeg(coded_image(*SIZES[i], i)), *SIZES[i], i % 3, i, (b"roc" * (i + 1),) if extra else ())
        for i in range(num)
    ]


class Coded:
    """The same images as ffcv's writer takes them."""

    def __init__(self, with_bytes: bool) -> None:
        self.with_bytes = with_bytes

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, i: int) -> tuple:
        extra = (np.frombuffer(b"roc" * (i + 1), np.uint8),) if self.with_bytes else ()
        return coded_image(*SIZES[i], i), i % 3, *extra


def write_stock(path: Path, with_bytes: bool = False, num_workers: int = 1, **image_options: object) -> Path:
    """ffcv's own writer."""
    fields = pytest.importorskip("ffcv.fields")
    from ffcv.writer import DatasetWriter

    columns = {"image": fields.RGBImageField(**image_options), "label": fields.IntField()}
    if with_bytes:
        columns["roc"] = fields.BytesField()
    DatasetWriter(str(path), columns, num_workers=num_workers).from_indexed_dataset(Coded(with_bytes), chunksize=3)
    return path


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.beton"
    assert write_beton(path, iter(samples(extra=True)), 15, CLASSES, ["roc"]) == len(SIZES)
    reader = open_source(path)
    assert isinstance(reader, BetonReader) and isinstance(reader, Source)
    assert reader.classes == CLASSES and reader.field_names == ("image", "label", "roc")
    assert reader.labels.tolist() == [i % 3 for i in range(10)] and reader.labels.dtype == np.int64
    assert reader.sizes.tolist() == [list(size) for size in SIZES] and reader.sizes.dtype == np.int64
    for i, sample in enumerate(samples(extra=True)):
        assert reader.read(i) == reader.image_bytes(i) == sample.image
        assert reader.field_bytes("roc", i) == sample.extra[0]
        assert np.array_equal(reader.pixels(i), decode_rgb(sample.image, "x"))
        assert reader.name(i) == f"{path}: sample {i}"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.beton"]


def test_header_is_the_published_one(tmp_path: Path) -> None:
    write_beton(tmp_path / "x.beton", samples(1), 1)
    data = (tmp_path / "x.beton").read_bytes()
    # version 2, two fields, 8 MiB pages, one sample, table after one page of header and one of data
    assert data[:24].hex() == "020002000000800001000000000000000000000100000000"
    assert data[24:46] == b"\x02image" + bytes(16) and data[24 + 1041 : 24 + 1041 + 7] == b"\x01label\x00"
    start = 24 + 2 * 1041
    assert data[start : start + 24].hex() == "002200140000008000000000000000000000000000000000"
    assert len(data) == (16 << 20) + 24


def test_ffcv_reads_ours(tmp_path: Path) -> None:
    stock = pytest.importorskip("ffcv.reader")
    from ffcv.fields import BytesField, IntField, RGBImageField

    write_beton(tmp_path / "x.beton", samples(extra=True), 12, CLASSES, ["roc"])
    reader = stock.Reader(str(tmp_path / "x.beton"))
    assert reader.num_samples == 10 and reader.field_names == ["image", "label", "roc"]
    assert [type(handler) for handler in reader.handlers.values()] == [RGBImageField, IntField, BytesField]
    assert reader.metadata["f1"].tolist() == [i % 3 for i in range(10)]
    size_at = dict(zip(reader.alloc_table["ptr"].tolist(), reader.alloc_table["size"].tolist(), strict=True))
    data = (tmp_path / "x.beton").read_bytes()
    for i, sample in enumerate(samples(extra=True)):
        _, width, height, pointer = reader.metadata["f0"][i].tolist()
        assert (height, width) == SIZES[i] and data[pointer : pointer + size_at[pointer]] == sample.image
        assert reader.metadata["f2"][i].tolist()[1] == len(sample.extra[0])


@pytest.mark.parametrize("with_bytes", [False, True])
def test_ours_are_ffcvs_byte_for_byte(with_bytes: bool, tmp_path: Path) -> None:
    stock = write_stock(tmp_path / "stock.beton", with_bytes, write_mode="jpg")
    reader = BetonReader(stock)
    same = [
        EncodedSample(reader.read(i), *SIZES[i], i % 3, i, (bytes(reader.field_bytes("roc", i)),) if with_bytes else ())
        for i in range(len(reader))
    ]
    write_beton(tmp_path / "ours.beton", same, len(same), extra_fields=["roc"] if with_bytes else [])
    assert (tmp_path / "ours.beton").read_bytes() == stock.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"write_mode": "jpg"},
        {"write_mode": "raw"},
        {"write_mode": "proportion"},
        {"write_mode": "smart", "smart_threshold": 2200},
    ],
    ids=lambda options: options["write_mode"],
)
def test_reads_ffcvs(options: dict[str, object], tmp_path: Path) -> None:
    np.random.seed(1)
    reader = BetonReader(write_stock(tmp_path / "x.beton", True, num_workers=2, jpeg_quality=100, **options))
    assert reader.classes == ("0", "1", "2") and reader.labels.tolist() == [i % 3 for i in range(10)]
    expected_modes = {"jpg": {0}, "raw": {1}, "proportion": {0, 1}, "smart": {0, 1}}[options["write_mode"]]
    assert set(reader.modes.tolist()) == expected_modes
    for i, size in enumerate(SIZES):
        error = np.abs(reader.pixels(i).astype(int) - coded_image(*size, i))
        assert error.max() <= (0 if reader.modes[i] == layout.MODE_RAW else 16)
        assert np.array_equal(decode_rgb(reader.read(i), "x"), reader.pixels(i))
        assert reader.field_bytes("roc", i) == b"roc" * (i + 1)


def test_steps_over_fields_of_other_types(tmp_path: Path) -> None:
    fields = pytest.importorskip("ffcv.fields")
    from ffcv.writer import DatasetWriter

    columns = {
        "weight": fields.FloatField(),
        "picture": fields.RGBImageField(write_mode="raw"),
        "mask": fields.NDArrayField(np.dtype("<f4"), (3,)),
        "about": fields.JSONField(),
        "target": fields.IntField(),
    }
    rows = [(0.5 * i, coded_image(9, 7, i), np.full(3, i, "<f4"), {"n": i}, i) for i in range(5)]
    DatasetWriter(str(tmp_path / "x.beton"), columns, num_workers=1).from_indexed_dataset(rows)
    reader = BetonReader(tmp_path / "x.beton")
    assert reader.labels.tolist() == [0, 1, 2, 3, 4]
    assert all(np.array_equal(reader.pixels(i), coded_image(9, 7, i)) for i in range(5))
    assert bytes(reader.field_bytes("about", 3)) == b'{"n": 3}\0'
    with pytest.raises(InputError, match="no bytes field 'roc'; it has weight, picture"):
        reader.field_bytes("roc", 0)


STOCK_LOADER = """
import sys
import numpy as np
from ffcv.loader import Loader, OrderOption
for os_cache in (True, False):
    stream = Loader(sys.argv[1] + "/x.beton", batch_size=4, num_workers=1, os_cache=os_cache,
                    order=OrderOption.SEQUENTIAL, drop_last=False, pipelines={"roc": None})
    images, labels = zip(*((images.numpy().copy(), labels.numpy().copy()) for images, labels in stream))
    np.savez(f"{sys.argv[1]}/{os_cache}", images=np.concatenate(images), labels=np.concatenate(labels).ravel())
"""


@pytest.mark.slow
def test_ffcvs_loader_gives_the_same_pixels(tmp_path: Path) -> None:
    """As near to Pillow's as ffcv's decoder comes, which is 6 grey levels: it asks libjpeg-turbo for its fast DCT.

    In a process of its own, because it makes numba's type of uint8 arrays read-only wherever it is used.
    """
    pytest.importorskip("ffcv.loader")
    same = [(jpeg(coded_image(40, 52, i)), i % 3) for i in range(11)]
    many = [EncodedSample(data, 40, 52, label, i, (b"x" * (i + 1),)) for i, (data, label) in enumerate(same)]
    write_beton(tmp_path / "x.beton", many, 11, CLASSES, ["roc"])
    subprocess.run([sys.executable, "-c", STOCK_LOADER, str(tmp_path)], check=True, timeout=250)
    for os_cache in (True, False):
        read = np.load(tmp_path / f"{os_cache}.npz")
        assert read["labels"].tolist() == [i % 3 for i in range(11)]
        for image, (data, _) in zip(read["images"], same, strict=True):
            assert np.abs(image.astype(int) - decode_rgb(data, "x")).max() <= 6


def test_samples_never_straddle_pages(tmp_path: Path) -> None:
    page = layout.MIN_PAGE_SIZE
    images = [jpeg(coded_image(16, 16, i)) + bytes(900_000) for i in range(7)]
    with BetonWriter(tmp_path / "x.beton", 7, page_size=page) as writer:
        for i, image in enumerate(images):
            writer.write(EncodedSample(image, 16, 16, 0, i))
        writer.finish()
    reader = BetonReader(tmp_path / "x.beton")
    first, last = reader.image_spans[:, 0] // page, (reader.image_spans.sum(axis=1) - 1) // page
    assert first.tolist() == last.tolist() == [1, 1, 2, 2, 3, 3, 4]
    assert all(reader.read(i) == image for i, image in enumerate(images))


def test_image_of_exactly_a_page_fits_and_one_more_byte_does_not(tmp_path: Path) -> None:
    page, image = layout.MIN_PAGE_SIZE, jpeg(coded_image(16, 16))
    with BetonWriter(tmp_path / "x.beton", 3, page_size=page) as writer:
        for i in range(2):
            writer.write(EncodedSample(image.ljust(page, b"\0"), 16, 16, 0, i))
        with pytest.raises(InputError, match="sample 2 takes 2097153 bytes"):
            writer.write(EncodedSample(image.ljust(page + 1, b"\0"), 16, 16, 0, 2))
        writer.finish()
    assert BetonReader(tmp_path / "x.beton").image_spans.tolist() == [[page, page], [2 * page, page]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: {"samples": []}, "no samples"),
        (lambda: {"max_samples": 5}, "more than max_samples=5"),
        (lambda: {"extra_fields": ["label"]}, "must differ"),
        (lambda: {"extra_fields": ["x" * 17]}, "1 to 16 ASCII"),
        (lambda: {"extra_fields": ["roc"]}, "1 byte strings for 2 fields"),
        (lambda: {"samples": [samples(1)[0]._replace(image=b"")]}, "empty field"),
        (lambda: {"classes": ["one"]}, "label is not below the number of classes 1"),
    ],
)
def test_writer_refuses_and_leaves_nothing(
    change: Callable[[], dict[str, object]], message: str, tmp_path: Path
) -> None:
    arguments = {"samples": samples(), "max_samples": 10} | change()
    with pytest.raises(InputError, match=message):
        write_beton(tmp_path / "x.beton", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_reader_survives_pickling(tmp_path: Path) -> None:
    write_beton(tmp_path / "x.beton", samples(), 10, CLASSES)
    copy = pickle.loads(pickle.dumps(BetonReader(tmp_path / "x.beton")))
    assert copy.classes == CLASSES and copy.read(9) == samples()[9].image


def test_recorded_size_must_be_the_images(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "x.beton", 1) as writer:
        writer.write(samples(1)[0]._replace(height=99))
        writer.finish()
    with pytest.raises(BadSampleError, match=r"x\.beton: sample 0: the JPEG has 20 x 34 pixels, .* 99 x 34"):
        BetonReader(tmp_path / "x.beton").pixels(0)


def fuzzed(path: Path, num: int, seed: int) -> Iterator[str]:
    """Damages the file in place, yields what was done, mends it, again and again.

    Half of the edits hit the numbers that lead elsewhere (sizes, counts, positions), with values at the borders of
    what fits; the others hit any byte of the tables.
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


def test_damaged_tables_of_ours_are_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    write_beton(path, samples(extra=True), 10, CLASSES, ["roc"])
    whole, num_refused = everything(BetonReader(path)), 0
    numeric = (("0", "1", "2"), *whole[1:])
    for edit in fuzzed(path, 2500, seed=1):
        try:
            found = everything(BetonReader(path))
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            num_refused += 1
        else:
            # Only the mark that leads to the class names may be lost without a word: ffcv's files have none.
            assert found in (whole, numeric), edit
    assert num_refused > 2000


def test_damaged_tables_of_ffcvs_never_lead_outside(tmp_path: Path) -> None:
    """Without a checksum damage can go unnoticed, but nothing else than InputError may come of it."""
    path = tmp_path / "x.beton"
    write_beton(path, samples(extra=True), 10, extra_fields=["roc"])
    num_refused = 0
    for edit in fuzzed(path, 2500, seed=2):
        try:
            reader = BetonReader(path)
            for i in range(min(len(reader), 20)):
                assert len(reader.image_bytes(i)) == reader.image_spans[i, 1], edit
                bytes(reader.field_bytes("roc", i)) if "roc" in reader.field_names else None
                reader.pixels(i)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error), edit
            num_refused += 1
    assert num_refused > 1000


@pytest.mark.parametrize(
    ("position", "dtype", "value", "message"),
    [
        (0, "<u2", 1, "format version 1 instead of 2"),
        (2, "<u2", 0, "0 fields"),
        (4, "<u4", 3 << 20, "page size 3145728 is no power of two"),
        (8, "<u8", 0, "no samples"),
        (8, "<u8", 1 << 60, "ends within the metadata"),
        (16, "<u8", 64, "allocation table is not where"),
        (24, "u1", 200, "unknown type 200"),
        (24, "u1", layout.TYPE_INT, "no field 'image' of the right type"),
        (24 + 1041 + 1, "S5", b"image", "no proper names"),
        (START, "u1", 2, "sample 0: stored in an unknown mode"),
        (START + 1, "<u2", 0, "sample 0: an image without pixels"),
        (START + 1, "<u2", 60000, "sample 0: its image has too few bytes"),
        (START + ROW + 5, "<u8", (8 << 20) + 1, "sample 1: its image is not in the allocation table"),
        (START + 16, "<i8", -1, "sample 0: its label is no class number"),
        (START + 16, "<i8", 1 << 40, "sample 0: its label is no class number"),
        (START + 24, "<u8", 1 << 63, "sample 0: its field 'about' lies outside"),
        (START + 24, "<u8", START, "sample 0: its field 'about' lies outside"),
        (START + 32, "<u8", 1 << 63, "sample 0: its field 'about' lies outside"),
    ],
)
def test_each_check_has_its_own_line(
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
def test_no_file_is_named(kind: str, message: str, tmp_path: Path) -> None:
    if kind == "folder":
        (tmp_path / "x.beton").mkdir()
    with pytest.raises(InputError, match=rf"x\.beton {message}"):
        BetonReader(tmp_path / "x.beton")


def test_killed_writer_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    def some() -> Iterator[EncodedSample]:
        yield from samples()[:5]
        os.kill(os.getpid(), signal.SIGKILL)

    target, child = tmp_path / "x.beton", os.fork()
    if child == 0:
        try:
            write_beton(target, some(), 10)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".x.beton.partial"]
    write_beton(target, samples(), 10)
    assert [path.name for path in tmp_path.iterdir()] == ["x.beton"]

""".beton files: ffcv reads ours, we read ffcv's, byte for byte."""

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

from fixres.pipelines.formats import beton_layout as layout
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.beton_writer import BetonWriter, write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import BadSampleError, InputError, Source
from tests.coded import coded_image, jpeg
from tests.pipelines.formats.beton_files import CLASSES, SIZES, samples, write_stock


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


def test_header_matches_the_published_layout(tmp_path: Path) -> None:
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
def test_our_files_equal_ffcvs_byte_for_byte(with_bytes: bool, tmp_path: Path) -> None:
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
def test_reads_files_of_ffcv(options: dict[str, object], tmp_path: Path) -> None:
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


def test_ignores_fields_of_other_types(tmp_path: Path) -> None:
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
    """Within 6 gray levels of Pillow: ffcv's decoder uses libjpeg-turbo's fast DCT.

    In its own process, because ffcv makes numba's type of uint8 arrays read-only everywhere.
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


def test_samples_never_cross_pages(tmp_path: Path) -> None:
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


def test_an_image_may_have_the_size_of_a_page(tmp_path: Path) -> None:
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
def test_the_writer_refuses_and_leaves_no_file(
    change: Callable[[], dict[str, object]], message: str, tmp_path: Path
) -> None:
    arguments = {"samples": samples(), "max_samples": 10} | change()
    with pytest.raises(InputError, match=message):
        write_beton(tmp_path / "x.beton", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_readers_can_be_pickled(tmp_path: Path) -> None:
    write_beton(tmp_path / "x.beton", samples(), 10, CLASSES)
    copy = pickle.loads(pickle.dumps(BetonReader(tmp_path / "x.beton")))
    assert copy.classes == CLASSES and copy.read(9) == samples()[9].image


def test_the_table_must_have_the_images_size(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "x.beton", 1) as writer:
        writer.write(samples(1)[0]._replace(height=99))
        writer.finish()
    with pytest.raises(BadSampleError, match=r"x\.beton: sample 0: the JPEG has 20 x 34 pixels, .* 99 x 34"):
        BetonReader(tmp_path / "x.beton").pixels(0)


def test_a_killed_writer_leaves_no_target(tmp_path: Path) -> None:
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

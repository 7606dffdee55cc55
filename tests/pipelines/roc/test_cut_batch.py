"""Batches of cuts equal the single cuts of `cut_crop`; wrong headers are refused."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.pipelines.loaders.dali.cutter import Cuts, Cutter
from fixres.pipelines.roc.cut import cut_crop
from fixres.pipelines.roc.layout import (
    BAD_INDEX,
    BYTES,
    LEVEL_SHIFT,
    NOT_DECODABLE,
    OK,
    PIXELS,
    TOO_LARGE,
    WRONG_SIZE,
    describe,
)
from tests.pipelines.roc.conftest import pillow, record

SIZES = [(97, 130), (200, 163), (64, 48), (33, 500)]
_GAP = 100


def store(fields: list[tuple[bytes, bytes]], sizes: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """A file of these samples, uint8, and its sample table, int64 (n, 6)."""
    data, table = b"", []
    for (image, field), size in zip(fields, sizes, strict=True):
        data += b"\xff" * _GAP
        table.append((len(data), len(image), len(data) + len(image), len(field), *size))
        data += image + field
    return np.frombuffer(data, np.uint8), np.array(table)


def cut_one(image: bytes, field: bytes, size: tuple[int, int], box: tuple, **options: object) -> Cuts:
    data, table = store([(image, field)], [size])
    options = {"inside": True, "min_zoom": float("inf"), "resolution": 32} | options
    cutter = Cutter(data, options["inside"], options["min_zoom"], None, options.get("bicubic", False))
    return cutter.cut(table, np.array([box], float), options["resolution"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_equal_single_cuts(data):
    """Integer boxes, any level: the same bytes followed by zeros, and the box where `cut_crop` puts it."""
    fields = [record(*size, min_short_side=16) for size in SIZES]
    file, table = store(fields, SIZES)
    boxes = []
    for height, width in SIZES:
        h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
        boxes.append((data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w)), h, w))
    zoom = data.draw(st.sampled_from([0.8, float("inf")]))
    cuts = Cutter(file, True, zoom, None).cut(table, np.array(boxes, float), 24)
    for k, (size, box) in enumerate(zip(SIZES, boxes, strict=True)):
        jpeg, corner, shift = cut_crop(*fields[k], size, box, 24, zoom)
        assert cuts.codes[k] == OK and bytes(cuts.encoded[k]).rstrip(b"\0") == jpeg.rstrip(b"\0")
        assert cuts.counts[k, [BYTES, LEVEL_SHIFT]].tolist() == [len(jpeg), shift]
        assert np.allclose(cuts.boxes[k], np.array(box) / 2**shift - (*corner, 0, 0))
        y, x, h, w = cuts.used[k]
        assert (y, x) == (box[0] // 2**shift - corner[0], box[1] // 2**shift - corner[1])
        assert (y + h, x + w) == (
            -(-(box[0] + box[2]) // 2**shift) - corner[0],
            -(-(box[1] + box[3]) // 2**shift) - corner[1],
        )
        assert cuts.counts[k, PIXELS] == np.prod(pillow(jpeg).shape[:2])


def test_evaluation_may_use_pixels_beyond_the_box():
    """A box of 40 pixels at 10 output pixels: the triangle reaches 4 - 2 pixels beyond it, the cubic 8 - 2."""
    size, fields = (97, 130), record(97, 130)
    wide = cut_one(*fields, size, (30, 31, 40, 40), inside=False, resolution=10)
    assert wide.used[0, 2:].tolist() == [44, 44]
    wider = cut_one(*fields, size, (30, 31, 40, 40), inside=False, resolution=10, bicubic=True)
    assert wider.used[0, 2:].tolist() == [52, 52]
    corner = cut_one(*fields, size, (0, 0, 40, 40), inside=False, resolution=10)
    assert corner.used[0].tolist() == [0, 0, 42, 42]


def test_threads_and_reused_buffers_change_nothing():
    sizes = [SIZES[k % len(SIZES)] for k in range(300)]
    data, table = store([record(*size) for size in sizes], sizes)
    random = np.random.default_rng(3)
    boxes = np.array([(0, 0, random.integers(8, h), random.integers(8, w)) for h, w in sizes], float)
    with ThreadPoolExecutor(3) as pool:
        threads, alone = Cutter(data, True, 0.8, pool), Cutter(data, True, 0.8, None)
        wanted = alone.cut(table, boxes, 32)
        kept = [array.copy() for array in wanted]
        for _ in range(3):
            got = threads.cut(table, boxes, 32)
            assert all(np.array_equal(one, other) for one, other in zip(got, kept, strict=True))
            got.encoded[:] = 0xAA  # the next cut may reuse this buffer
            del got


def test_one_huge_cut_does_not_widen_all_rows():
    sizes = [(40, 40)] * 63 + [(1000, 1200)]
    data, table = store([record(*size, num_levels=1) for size in sizes], sizes)
    boxes = np.array([(0, 0, *size) for size in sizes], float)
    cuts = Cutter(data, True, 0.8, None).cut(table, boxes, 32)
    assert isinstance(cuts.encoded, list) and (cuts.codes == OK).all()
    assert [len(row) for row in cuts.encoded] == cuts.counts[:, BYTES].tolist()
    assert pillow(bytes(cuts.encoded[-1])).shape == (1000, 1200, 3)


def change(image: bytes, at: int, value: bytes) -> bytes:
    return image[:at] + value + image[at + len(value) :]


def test_headers_that_disagree_with_the_record_are_refused():
    """A decoder would use a size, sampling or interval that was not checked."""
    size, (image, field) = (97, 130), record(97, 130)
    sof = describe(field, len(image), *size)[0]["sof_height"]
    dri, dqt = image.index(b"\xff\xdd"), image.index(b"\xff\xdb")
    word = 4 * (4 + 6)  # the record's position of the height in SOF
    for changed, record_field, code in (
        (change(image, sof, struct.pack(">H", 65535)), field, WRONG_SIZE),
        (change(image, sof + 2, struct.pack(">H", 65535)), field, WRONG_SIZE),
        (change(image, sof + 6, b"\x11"), field, WRONG_SIZE),
        (change(image, sof - 4, b"\xc2"), field, NOT_DECODABLE),
        (change(image, dri + 4, b"\x00\x07"), field, NOT_DECODABLE),
        (change(image, dqt, b"\xff\xc4"), field, OK),  # tables are checked by the decoder
        (image, change(field, word, struct.pack("<I", sof - 6)), NOT_DECODABLE),
        (image, field, OK),
    ):
        cuts = cut_one(changed, record_field, size, (3, 5, 40, 50))
        assert cuts.codes[0] == code
        assert cuts.encoded[0].any() == (code == OK)


def test_missing_and_surplus_markers_are_found():
    """Markers that do not match the index are found without decoding."""
    size, (image, field) = (97, 130), record(97, 130)
    start = describe(field, len(image), *size)[0]["header_size"]
    marker = image.index(b"\xff\xd2", start)
    stray = marker - 12
    assert b"\xff" not in image[stray - 2 : stray + 4]
    for changed in (
        change(image, marker, b"\x00\x00"),
        change(image, marker, b"\xff\xd3"),
        change(image, stray, b"\xff\xd9"),
    ):
        assert cut_one(changed, field, size, (0, 0, 97, 130)).codes[0] == BAD_INDEX
        assert cut_one(changed, field, size, (60, 0, 30, 30)).codes[0] == OK  # cut from undamaged bytes


def test_an_index_beyond_the_file_is_refused():
    size, (image, field) = (97, 130), record(97, 130)
    at = describe(field, len(image), *size)[0]["index_start"]
    assert cut_one(image, change(field, at, b"\xff\xff" * 8), size, (0, 0, 97, 130)).codes[0] == BAD_INDEX


def test_cuts_too_large_for_a_decoder_are_refused():
    """The kernel's own limit, 2**27 pixels, with a record that claims to be that large."""
    size, (image, field) = (97, 130), record(97, 130, num_levels=1)
    height, width = 65535, 65528
    words = {3: height, 4: width, 8: 8, 9: 8, 10: 1}
    for word, value in words.items():
        field = change(field, 4 * (4 + word), struct.pack("<I", value))
    sof = describe(record(*size, num_levels=1)[1], len(image), *size)[0]["sof_height"]
    image = change(image, sof, struct.pack(">HH", height, width))
    image = change(image, sof + 6, b"\x11")
    index_size = 2 * 8192 * 8191
    field = field + bytes(index_size)
    field = change(field, 12, struct.pack("<I", len(field)))
    cuts = cut_one(image, field, (height, width), (0, 0, height, width))
    assert cuts.codes[0] == TOO_LARGE

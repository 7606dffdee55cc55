"""Several crops of an image that are decoded together equal those that are decoded alone, to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.pipelines.roc.decoder.crops import decode_samples, decode_views
from fixres.pipelines.roc.decoder.views import disjoint_parts
from fixres.pipelines.roc.layout import BAD_BOX, BYTES, LEVEL_SHIFT, NUM_COUNTS, OK, PIXELS, ROC_SIZE, ROC_START
from tests.pipelines.roc.conftest import record

SIZES = [(97, 130), (200, 163), (64, 48), (33, 500)]
SIDES = np.array([32, 33, 64])


def stored(num: int) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of `num` samples, and their table."""
    fields = [record(*SIZES[i % 4], subsampling=("4:2:0", "4:2:2", "4:4:4")[i % 3]) for i in range(num)]
    table, at = [], 0
    for i, (image, field) in enumerate(fields):
        table.append([at, len(image), at + len(image), len(field), *SIZES[i % 4]])
        at += len(image) + len(field)
    return np.frombuffer(b"".join(image + field for image, field in fields), np.uint8), np.array(table)


def together(data, table, boxes, flips, bicubic, inside, min_zoom):
    """The views of `SIDES` by number, codes and counts."""
    num = len(table)
    sizes = 3 * SIDES**2 * num
    starts = np.cumsum(sizes) - sizes
    guarded = np.full(sizes.sum() + 128, 77, np.uint8)
    out, codes, counts = guarded[64:-64], np.full(num, -1), np.zeros((num, NUM_COUNTS), np.int64)
    decode_views(data, table, boxes, flips, bicubic, inside, min_zoom, out, starts, SIDES, codes, counts)
    assert (guarded[:64] == 77).all() and (guarded[-64:] == 77).all()
    parts = zip(np.split(out, starts[1:]), SIDES, strict=True)
    return [part.reshape(num, side, side, 3) for part, side in parts], codes, counts


def alone(data, table, boxes, flips, bicubic, inside, min_zoom, check=True):
    """Views and counts of each; with `check` False codes in place of counts."""
    views, found = [], []
    for k, side in enumerate(SIDES):
        out = np.zeros((len(table), side, side, 3), np.uint8)
        codes, counts = np.full(len(table), -1), np.zeros((len(table), NUM_COUNTS), np.int64)
        chosen = (np.ascontiguousarray(values[:, k]) for values in (boxes, flips, bicubic))
        decode_samples(data, table, *chosen, inside, min_zoom, out, codes, counts)
        assert not check or (codes == OK).all()
        views.append(out)
        found.append(counts if check else codes)
    return views, np.array(found)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([0.3, 0.8, np.inf]), st.sampled_from([1, 3]))
def test_views_equal_single_crops(seed: int, inside: bool, min_zoom: float, shared: int) -> None:
    """Random boxes, most of which overlap; `shared` 1: all views have the same box."""
    random = np.random.default_rng(seed)
    data, table = stored(4)
    size = table[:, None, 4:].astype(float)
    extent = np.maximum(random.uniform(0.05, 1, (4, shared, 2)) * size, 1)
    corner = random.uniform(0, 1, (4, shared, 2)) * (size - extent)
    boxes = np.concatenate([corner, extent], -1)
    boxes = np.ascontiguousarray(np.broadcast_to(boxes, (4, 3, 4)))
    if inside:
        boxes = np.floor(boxes)
    how = random.random((4, 3)) < 0.5, random.random((4, 3)) < 0.5, inside, min_zoom
    views, codes, counts = together(data, table, boxes, *how)
    expected, single = alone(data, table, boxes, *how)
    assert (codes == OK).all() and all(map(np.array_equal, views, expected))
    assert (counts[:, LEVEL_SHIFT] == single[0, :, LEVEL_SHIFT]).all()
    for column in (BYTES, PIXELS):  # what is shared counts once
        assert (counts[:, column] <= single[:, :, column].sum(0)).all()
        assert (counts[:, column] >= single[:, :, column].max(0)).all()


def test_a_bad_view_or_record_gives_the_whole_image_a_code() -> None:
    data, table = stored(4)
    boxes = np.tile(np.array([0.0, 0, 30, 30]), (4, 3, 1))
    boxes[1, 2] = (0, 0, 0, 5)
    start, size = table[2, ROC_START], table[2, ROC_SIZE]
    content = bytearray(data.tobytes())
    content[start : start + size] = bytes(size)
    damaged = np.frombuffer(bytes(content), np.uint8)  # read-only, as kernels are compiled for files
    how = np.zeros((4, 3), bool), np.zeros((4, 3), bool), True, np.inf
    views, codes, counts = together(damaged, table, boxes, *how)
    assert codes[1] == BAD_BOX and codes[2] not in (OK, BAD_BOX) and codes[[0, 3]].tolist() == [OK, OK]
    assert counts[1].tolist() == [0, 0, 0]
    expected, _ = alone(data, table, np.tile(boxes[:1], (4, 1, 1)), *how)
    for view, other in zip(views, expected, strict=True):
        assert np.array_equal(view[[0, 3]], other[[0, 3]])


def test_mutated_samples_are_refused_together_as_alone() -> None:
    """Whatever the record says, nothing is written outside the crops, and what is accepted has the same pixels."""
    random, (data, table) = np.random.default_rng(0), stored(4)
    boxes = np.tile(np.array([[0.0, 0, 33, 48], [5, 3, 20, 40], [1, 20, 30, 28]]), (4, 1, 1))
    how = random.random((4, 3)) < 0.5, np.zeros((4, 3), bool), True, 0.8
    num_refused = 0
    for _ in range(150):
        content = np.frombuffer(data.tobytes(), np.uint8).copy()
        for start, size in table[:, [ROC_START, ROC_SIZE]].tolist() + table[:, :2].tolist():
            if random.random() < 0.4:
                places = start + random.integers(0, min(size, random.choice([64, 700, size])), random.integers(1, 4))
                content[places] = random.integers(0, 256, len(places))
        mutated = np.frombuffer(content.tobytes(), np.uint8)
        views, codes, _ = together(mutated, table, boxes, *how)
        expected, single = alone(mutated, table, boxes, *how, check=False)
        good = (single == OK).all(0)
        assert ((codes == OK) == good).all()
        assert all(np.array_equal(view[good], other[good]) for view, other in zip(views, expected, strict=True))
        num_refused += int((~good).sum())
    assert 100 < num_refused < 500


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=6))
def test_parts_cover_the_windows_once(corners: list[tuple[int, int, int, int]]) -> None:
    windows = np.zeros((len(corners), 8), np.int64)
    for window, (y, x, height, width) in zip(windows, corners, strict=True):
        window[:4] = y, y + height + 1, x, x + width + 1
    wanted, covered = np.zeros((26, 26), int), np.zeros((26, 26), int)
    for y, y_end, x, x_end in windows[:, :4]:
        wanted[y:y_end, x:x_end] = 1
    for y, y_end, x, x_end in disjoint_parts(windows, np.arange(len(windows))):
        covered[y:y_end, x:x_end] += 1
    assert np.array_equal(covered, wanted)

"""Checkpoints are found where they are, and files that have none are told apart."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from fixres.pipelines.crop_index import checkpoints as ck
from tests.pipelines.crop_index.whole_files import save
from tests.pipelines.roc.conftest import photo


def positions(checkpoints: ck.Checkpoints) -> tuple[np.ndarray, np.ndarray]:
    """Positions in bits, int64 (n,), and DC values, int16 (n, components)."""
    words = checkpoints.words.reshape(-1, 2 + checkpoints.sample[ck.NUM_COMPONENTS])
    return words[:, :2].astype(np.int64) @ [1, 65536], words[:, 2:].view(np.int16)


@pytest.mark.parametrize(("subsampling", "rows", "columns"), [("4:4:4", 8, 8), ("4:2:2", 8, 16), ("4:2:0", 16, 16)])
def test_where_restart_markers_are(subsampling, rows, columns):
    jpeg = save(photo(77, 400), quality=90, subsampling=subsampling, restart_marker_blocks=1)
    found = ck.scan(jpeg)
    names = ck.HEIGHT, ck.WIDTH, ck.NUM_COMPONENTS, ck.BLOCK_ROWS, ck.BLOCK_COLUMNS, ck.RESTART_INTERVAL
    assert found.sample[list(names)].tolist() == [77, 400, 3, rows // 8, columns // 8, 1]
    header, end = found.sample[ck.HEADER_SIZE], found.sample[ck.HEADER_SIZE] + found.sample[ck.DATA_SIZE]
    assert jpeg[end:] == b"\xff\xd9"
    markers = [0, *(match.end() for match in re.finditer(rb"\xff[\xd0-\xd7]", jpeg[header:end]))]
    num_columns = -(-400 // columns)
    wanted = np.array(markers).reshape(-(-77 // rows), num_columns)[:, :: 128 // columns]
    bits, dc = positions(found)
    assert (bits == 8 * wanted.ravel()).all() and not dc.any()


def test_dc_values_are_those_of_the_block_before():
    """Of a gray image whose blocks are constant, the DC values are known: 8 * (gray - 128) / step."""
    grays = np.random.default_rng(3).integers(0, 256, (5, 40))
    jpeg = save(grays.repeat(8, 0).repeat(8, 1).astype(np.uint8), qtables=[[8] * 64])
    _, dc = positions(ck.scan(jpeg))
    before = np.concatenate([[128], grays.ravel()[:-1]]).reshape(5, 40) - 128
    assert (dc.reshape(5, 3) == before[:, ::16]).all()


def test_files_without_checkpoints():
    image, jpeg = photo(40, 50), save(photo(40, 50))
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    damaged = bytearray(jpeg)
    damaged[-40:-30] = b"\xfe" * 10
    frame = b"\xff\xc0\0\x11\x08"
    kinds = {
        b"": ck.NOT_JPEG,
        b"\x89PNG\r\n\x1a\n": ck.NOT_JPEG,
        save(image, progressive=True): ck.PROGRESSIVE,
        cmyk.getvalue(): ck.CMYK,
        save(image, keep_rgb=True): ck.ODD,
        jpeg[: jpeg.index(b"\xff\xda")]: ck.DAMAGED,
        jpeg[:-2]: ck.DAMAGED,
        jpeg[:-2] + b"\0\xff\xd9": ck.DAMAGED,
        jpeg[:-100] + b"\xff\xd9": ck.DAMAGED,
        bytes(damaged): ck.DAMAGED,
        jpeg.replace(frame, b"\xff\xc0\0\x11\x0c"): ck.TWELVE_BIT,
        jpeg.replace(frame, b"\xff\xc9\0\x11\x08"): ck.ARITHMETIC,
        jpeg.replace(frame, b"\xff\xc1\0\x11\x08"): ck.ODD,
        jpeg: ck.INDEXED,
        jpeg + b"behind the end": ck.INDEXED,
        save(image[..., 0]): ck.INDEXED,
    }
    for data, kind in kinds.items():
        found = ck.scan(data)
        assert found.sample[ck.KIND] == kind, (data[:20], found.sample)
        assert (found.words.size > 0) == (kind == ck.INDEXED)
        has_size = b"\xff\xd8" in data and found.sample[ck.KIND] != ck.NOT_JPEG
        assert found.sample[[ck.HEIGHT, ck.WIDTH]].tolist() == ([40, 50] if has_size else [0, 0])


def test_a_batch_holds_what_each_file_gives():
    files = [save(photo(40, 300)), b"none", save(photo(40, 50), progressive=True), save(photo(9, 140)[..., 1])]
    ends = np.cumsum([len(data) for data in files])
    spans = np.stack([ends - [len(data) for data in files], [len(data) for data in files]], axis=1)
    samples, words = ck.scan_batch(np.frombuffer(b"".join(files), np.uint8), spans)
    for data, sample in zip(files, samples, strict=True):
        alone, first = ck.scan(data), int(sample[ck.FIRST])
        assert (words[first : first + ck.num_words(sample)] == alone.words).all()
        assert np.delete(sample - alone.sample, ck.FIRST).any() == 0

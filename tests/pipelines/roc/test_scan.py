"""The coder of scans against libjpeg, byte for byte, and its parts against their definitions."""

from __future__ import annotations

import heapq
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit
from PIL import Image, ImageFile

from pipelines.roc.encoder.fdct import fdct_block
from pipelines.roc.encoder.huffman import assign_codes, optimal_table
from pipelines.roc.encoder.jpeg_file import MCU, code_level
from pipelines.roc.encoder.record import RocQuality, encode
from tests.pipelines.roc.conftest import photo, pillow
from tests.pipelines.roc.indexing import index_jpeg


def libjpegs(pixels: np.ndarray, quality: int, subsampling: str) -> bytes:
    """The file that Pillow makes of the same wishes."""
    buffer = io.BytesIO()
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 8 * pixels.size + 65536)  # Pillow's own guess is too small for noise
    Image.fromarray(pixels).save(
        buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True, restart_marker_blocks=1
    )
    return buffer.getvalue()


def coded(pixels: np.ndarray, quality: int, subsampling: str) -> bytes:
    pixels = np.ascontiguousarray(pixels)
    pixels.setflags(write=False)  # one compiled version
    return code_level(pixels, 0, quality, subsampling).jpeg


@settings(max_examples=120, deadline=None)
@example(1, 1, 0, "4:2:0", 90)
@example(8, 9, 1, "4:2:0", 100)
@example(9, 8, 1, "4:2:0", 1)
@example(24, 40, 2, "4:2:0", 95)  # an odd number of blocks either way: half an MCU is made up
@example(24, 40, 2, "4:2:2", 95)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99), st.sampled_from(sorted(MCU)), st.integers(1, 100))
def test_noise_is_coded_as_libjpeg_does(height: int, width: int, seed: int, subsampling: str, quality: int) -> None:
    """Every size is an edge case: repeated pixels, MCUs that the image does not fill."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    if seed % 3 == 0:  # extremes: the largest coefficients
        pixels = pixels // 128 * 255
    elif seed % 3 == 1:  # smooth: long runs of zeros
        pixels = np.asarray(Image.fromarray(pixels[:4, :4]).resize((width, height), Image.Resampling.BICUBIC))
    assert coded(pixels, quality, subsampling) == libjpegs(pixels, quality, subsampling)


@pytest.mark.parametrize("subsampling", sorted(MCU))
@pytest.mark.parametrize("quality", [50, 90, 98])
def test_photographs_are_coded_as_libjpeg_does(subsampling: str, quality: int) -> None:
    for size in ((375, 500), (233, 417)):
        pixels = photo(*size)
        level = code_level(pixels, 0, quality, subsampling)
        assert level.jpeg == libjpegs(pixels, quality, subsampling)
        known = index_jpeg(level.jpeg)
        assert np.array_equal(level.lengths, known.lengths)
        for name in ("height", "width", "header_size", "sof_height", "mcu_height", "mcu_width", "interval"):
            assert getattr(level, name) == getattr(known, name), name


def test_flat_images_have_the_shortest_segments() -> None:
    """One symbol in each table: codes of one bit, never the code of all ones."""
    for color in ((0, 0, 0), (255, 255, 255), (12, 200, 77)):
        pixels = np.full((40, 56, 3), color, np.uint8)
        jpeg = coded(pixels, 90, "4:2:0")
        assert jpeg == libjpegs(pixels, 90, "4:2:0")
        assert np.abs(pillow(jpeg).astype(int) - pixels).max() <= 2


def test_all_levels_are_files_that_pillow_reads() -> None:
    image, field = encode(photo(400, 300), RocQuality(num_levels=3, min_short_side=40))
    assert pillow(image).shape == (400, 300, 3)
    second = field.index(b"\xff\xd8\xff")
    assert np.asarray(Image.open(io.BytesIO(field[second:]))).shape == (200, 150, 3)


@njit
def _transformed(samples, steps, out):
    halves, reciprocals = (4 * steps).astype(np.int32), (1 / (8 * steps)).astype(np.float32)
    return fdct_block(samples, 0, 8, halves, reciprocals, 0, out)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_coefficients_are_the_cosine_transforms(seed: int, largest: int) -> None:
    """Against the definition (JPEG standard, A.3.3) in floating point; what is on the brink may fall either way."""
    random = np.random.default_rng(seed)
    samples = random.integers(0, 256, (8, 8)) if seed % 2 else np.tile(random.integers(0, 2, 8), (8, 1)) * 255
    steps = random.integers(1, largest + 1, 64).astype(np.int32)
    out = np.empty(64, np.int32)
    mask = int(_transformed(samples.astype(np.uint8).ravel(), steps, out))
    k = np.arange(8)
    basis = np.cos((2 * k[None] + 1) * k[:, None] * np.pi / 16) * np.where(k == 0, np.sqrt(0.125), 0.5)[:, None]
    exact = (basis @ (samples - 128.0) @ basis.T).ravel() / steps
    assert (np.abs(out - exact) * steps <= steps / 2 + 0.5).all()  # the integer method errs by up to 0.4
    assert [mask >> i & 1 for i in range(64)] == (out != 0).astype(int).tolist()


def _fewest_bits(histogram: np.ndarray) -> int:
    """Bits of Huffman's code of unlimited length, with a symbol of frequency 1 more that is not used."""
    heap = [1, *histogram[histogram > 0].tolist()]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 256))
def test_tables_are_optimal_and_prefix_free(seed: int, num_symbols: int) -> None:
    random = np.random.default_rng(seed)
    histogram = np.zeros(256, np.int64)
    histogram[random.permutation(256)[:num_symbols]] = random.integers(1, 3000, num_symbols)
    counts, symbols, codes = np.zeros(16, np.uint8), np.zeros(256, np.uint8), np.zeros(256, np.uint32)
    optimal_table(histogram, counts, symbols)
    assign_codes(histogram, counts, symbols, codes)
    assert sorted(symbols[: counts.sum()].tolist()) == np.flatnonzero(histogram).tolist()
    texts = [f"{codes[s] >> 8:0{codes[s] & 255}b}" for s in np.flatnonzero(histogram)]
    assert all(not b.startswith(a) for a, b in zip(sorted(texts), sorted(texts)[1:], strict=False))
    assert all("0" in text for text in texts)
    bits = sum(int(histogram[s]) * int(codes[s] & 255) for s in np.flatnonzero(histogram))
    longest = int(np.flatnonzero(counts).max()) + 1
    fewest = _fewest_bits(histogram)  # counts the unused symbol's code, too
    assert fewest - 17 <= bits <= (fewest if longest < 16 else 1.01 * fewest)


def test_codes_are_never_longer_than_16_bits() -> None:
    """Frequencies like Fibonacci's numbers would take a bit more for each symbol."""
    histogram = np.zeros(256, np.int64)
    a, b = 1, 1
    for symbol in range(40):
        histogram[symbol] = a
        a, b = b, a + b
    counts, symbols, codes = np.zeros(16, np.uint8), np.zeros(256, np.uint8), np.zeros(256, np.uint32)
    optimal_table(histogram, counts, symbols)
    assign_codes(histogram, counts, symbols, codes)
    assert counts.sum() == 40 and sum(int(n) << (16 - k) for k, n in enumerate(counts, 1)) < 1 << 16

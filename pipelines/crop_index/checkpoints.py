"""Checkpoints of a JPEG: where the decoder can start inside the file, and in which state.

A checkpoint stands before the first MCU of each row of MCUs and before the MCU at every 128th pixel of the row after
it. It holds the position of the next bit in the entropy-coded data, and the DC value of each component in the block
before. So a crop can be decoded without what lies before it, as from a restart marker, while the file stays as it is.

The data of a file has two parts, which are flat, so that an index of many files can be mapped into memory and given to
the kernels as it is:

    sample    int64, the columns below
    words     uint16, for each checkpoint: low and high half of its position, and the DC value of each component

A position is 8 * bytes + bits, counted from the first entropy-coded byte, stuffed bytes and markers included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fixres.pipelines.runtime.numba_cache import kernel

SPACING = 128  # pixels of a row between two checkpoints; as many decoded for each row of a crop cost too much

# Columns of a sample. A file that must be decoded whole has only KIND, HEIGHT and WIDTH.
KIND = 0  # INDEXED or the reason why not
FIRST = 1  # the position of the first checkpoint in the words
HEIGHT = 2  # in pixels; 0 if the headers do not tell
WIDTH = 3
HEADER_SIZE = 4  # bytes from SOI to the first entropy-coded byte
DATA_SIZE = 5  # bytes of entropy-coded data, up to the end marker
NUM_COMPONENTS = 6
BLOCK_ROWS = 7  # rows and columns of luma blocks in an MCU
BLOCK_COLUMNS = 8
RESTART_INTERVAL = 9  # in MCUs; 0 if the file has no restart markers
NUM_SAMPLE_COLUMNS = 10

# Kinds of files.
INDEXED, NOT_JPEG, PROGRESSIVE, ARITHMETIC, TWELVE_BIT, CMYK, MULTI_SCAN, DAMAGED, ODD = range(9)
REASONS = {
    NOT_JPEG: "not a JPEG file",
    PROGRESSIVE: "progressive",
    ARITHMETIC: "arithmetic coding",
    TWELVE_BIT: "12 bits a sample",
    CMYK: "CMYK",
    MULTI_SCAN: "several scans",
    DAMAGED: "damaged",
    ODD: "an unusual kind of JPEG",
}
"""Why a file has no checkpoints and is decoded whole."""


class Checkpoints(NamedTuple):
    """What the index holds of one file."""

    sample: np.ndarray
    """int64 (NUM_SAMPLE_COLUMNS,)."""
    words: np.ndarray
    """uint16; empty unless sample[KIND] is INDEXED."""


@kernel
def num_mcus(side: int, blocks: int) -> int:
    """MCUs along `side` pixels, with this number of luma blocks each."""
    return (side + 8 * blocks - 1) // (8 * blocks)


@kernel
def spacing(sample: np.ndarray) -> int:
    """MCUs from one checkpoint of a row to the next."""
    return SPACING // (8 * sample[BLOCK_COLUMNS])


@kernel
def num_columns(sample: np.ndarray) -> int:
    """Checkpoints in a row of MCUs."""
    step = spacing(sample)
    return (num_mcus(sample[WIDTH], sample[BLOCK_COLUMNS]) + step - 1) // step


@kernel
def num_words(sample: np.ndarray) -> int:
    """Words of a sample's checkpoints."""
    if sample[KIND] != INDEXED:
        return 0
    return num_mcus(sample[HEIGHT], sample[BLOCK_ROWS]) * num_columns(sample) * (2 + sample[NUM_COMPONENTS])


@kernel
def count_words(samples: np.ndarray, words: np.ndarray) -> None:
    """Fills `words`, int64 (n,), with `num_words` of each of n samples."""
    for k in range(words.size):
        words[k] = num_words(samples[k])


def scan(jpeg: bytes | np.ndarray) -> Checkpoints:
    """Finds the checkpoints of a file.

    Args:
        jpeg: the file, bytes or uint8.

    Returns:
        The checkpoints. Their `sample[KIND]` tells whether there are any, see `REASONS`.

    Example:
        sample, words = scan(path.read_bytes())
        print("indexed" if sample[KIND] == INDEXED else REASONS[int(sample[KIND])])
    """
    data = np.frombuffer(jpeg, np.uint8)
    samples, words = scan_batch(data, np.array([[0, data.size]]))
    return Checkpoints(samples[0], words[: num_words(samples[0])])


def scan_batch(data: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the checkpoints of several files, without the GIL.

    Args:
        data: uint8, the files.
        spans: int64 (n, 2): where each of them begins in `data`, and its bytes.

    Returns:
        int64 (n, NUM_SAMPLE_COLUMNS), the samples; their FIRST counts from the start of this call's words. uint16, the
        words of all samples; those of a damaged file are without meaning.
    """
    from fixres.pipelines.crop_index.scanning import read_samples, scan_samples

    start, size = spans.min(initial=data.size), (spans[:, 0] + spans[:, 1]).max(initial=0)
    assert start >= 0 and size <= data.size and (spans[:, 1] >= 0).all()
    samples = np.zeros((len(spans), NUM_SAMPLE_COLUMNS), np.int64)
    words = np.zeros(read_samples(data, spans, samples), np.uint16)
    scan_samples(data, spans, samples, words)
    return samples, words

"""The batch kernel for untouched JPEG files: from stored bytes to finished crops, without the GIL.

It decodes only what a crop needs, from the checkpoints of an index. Files and index are untrusted: a sample whose bytes
are not those that were indexed gets an error code instead of an exception.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
import fixres.pipelines.roc.decoder.entropy as entropy
import fixres.pipelines.roc.layout as layout
from fixres.pipelines.crop_index.segments import count_segments, read_segments, used_bytes
from fixres.pipelines.crop_index.window import Window, choose_shift, cover
from fixres.pipelines.roc.decoder.jpeg_tables import Tables, empty_tables, read_tables
from fixres.pipelines.roc.decoder.planes import on_level, planes_to_crop
from fixres.pipelines.roc.decoder.segments import Work, empty_work, lay_out_blocks
from fixres.pipelines.runtime.numba_cache import kernel

# Columns of a place, int64: where the file begins in the data; where the part of its entropy-coded data that was read
# begins there; how many bytes of the entropy-coded data lie before that part; its bytes. Two bytes before and behind
# what a window needs are included if the file has them there: markers.
HEADERS, BODY, BODY_OFFSET, BODY_SIZE = range(4)
NUM_PLACE_COLUMNS = 4


@kernel
def decode_indexed(
    data: np.ndarray,
    places: np.ndarray,
    samples: np.ndarray,
    words: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    bicubic: np.ndarray,
    inside: bool,
    min_zoom: float,
    out: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Makes the crops of n samples. Kernels take arrays instead of objects: many parameters.

    Args:
        data: uint8, files or parts of them.
        places: int64 (n, NUM_PLACE_COLUMNS), where they are; untrusted.
        samples: int64 (n, NUM_SAMPLE_COLUMNS), see `checkpoints`, all INDEXED; untrusted.
        words: uint16, those of the index; untrusted.
        boxes, flips, bicubic, inside, out, codes, counts: see `roc.decoder.crops.decode_samples`.
        min_zoom: see `window.choose_shift`.
    """
    tables, work = empty_tables(), empty_work()
    for i in range(places.shape[0]):
        counts[i, :] = 0
        codes[i] = check_sample(data.size, places[i], samples[i], words.size)
        if codes[i] == layout.OK:
            codes[i] = layout.check_box(boxes[i], samples[i, checkpoints.HEIGHT], samples[i, checkpoints.WIDTH])
        if codes[i] == layout.OK:
            codes[i] = _decode_crop(
                data,
                places[i],
                samples[i],
                words,
                boxes[i],
                flips[i],
                bicubic[i],
                inside,
                min_zoom,
                tables,
                work,
                out[i],
                counts[i],
            )


def compile_decoder() -> None:
    """Compiles `decode_indexed` for arguments as loaders have them, unless that is on disk."""
    table, flags = np.empty((0, NUM_PLACE_COLUMNS), np.int64), np.empty(0, bool)
    samples, pixels = np.empty((0, checkpoints.NUM_SAMPLE_COLUMNS), np.int64), np.empty((0, 1, 1, 3), np.uint8)
    codes, counts = np.empty(0, np.int64), np.empty((0, layout.NUM_COUNTS), np.int64)
    words, boxes = np.empty(0, np.uint16), np.empty((0, 4))
    data = np.frombuffer(b"none", np.uint8)  # cannot be written, like the bytes of files
    decode_indexed(
        data, table, samples, words, boxes, flags, flags, True, 1.0, pixels, codes, counts
    )  # fmt: skip


@kernel
def check_sample(data_size: int, place: np.ndarray, sample: np.ndarray, num_words: int) -> int:
    """Checks that the parts of a file lie in the data, and that its index is possible; returns OK or an error code."""
    header_size, count = sample[checkpoints.HEADER_SIZE], sample[checkpoints.NUM_COMPONENTS]
    rows, columns = sample[checkpoints.BLOCK_ROWS], sample[checkpoints.BLOCK_COLUMNS]
    for start, size in ((place[HEADERS], header_size), (place[BODY], place[BODY_SIZE])):
        if start < 0 or size < 0 or start > data_size or size > data_size - start:
            return layout.OUTSIDE_FILE
    if sample[checkpoints.KIND] != checkpoints.INDEXED or (count != 1 and count != 3):
        return layout.NOT_AS_INDEXED
    if not (1 <= rows <= 2 and (columns == 1 or columns == 2 or columns == 4)):
        return layout.NOT_AS_INDEXED
    for side in (sample[checkpoints.HEIGHT], sample[checkpoints.WIDTH]):
        if not 1 <= side <= layout.MAX_SIDE:
            return layout.NOT_AS_INDEXED
    first = sample[checkpoints.FIRST]
    if first < 0 or first > num_words or checkpoints.num_words(sample) > num_words - first:
        return layout.NOT_AS_INDEXED
    if not (0 <= sample[checkpoints.RESTART_INTERVAL] < 1 << 16 and 0 <= place[BODY_OFFSET] < 1 << 32):
        return layout.NOT_AS_INDEXED
    return layout.OK if 0 <= sample[checkpoints.DATA_SIZE] < 1 << 32 else layout.NOT_AS_INDEXED


@kernel
def _decode_crop(
    data: np.ndarray,
    place: np.ndarray,
    sample: np.ndarray,
    words: np.ndarray,
    box: np.ndarray,
    flip: bool,
    bicubic: bool,
    inside: bool,
    min_zoom: float,
    tables: Tables,
    work: Work,
    out: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Decodes what one crop needs; returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    header_size, frame = sample[checkpoints.HEADER_SIZE], tables.frame
    if not read_tables(data[place[HEADERS] : place[HEADERS] + header_size], tables):
        return layout.NOT_AS_INDEXED
    height, width, resolution = sample[checkpoints.HEIGHT], sample[checkpoints.WIDTH], out.shape[0]
    if frame[0] != height or frame[1] != width or frame[2] != sample[checkpoints.NUM_COMPONENTS]:
        return layout.NOT_AS_INDEXED
    if frame[3] != sample[checkpoints.BLOCK_ROWS] or frame[4] != sample[checkpoints.BLOCK_COLUMNS]:
        return layout.NOT_AS_INDEXED
    shift = choose_shift(box, resolution, min_zoom)
    bounds, level_box = on_level(box, shift, height, width, resolution, inside, bicubic)
    window = cover(sample, shift, bounds)
    if window.pixels[2] * window.pixels[3] > layout.MAX_PIXELS:
        return layout.TOO_LARGE
    planes = np.empty(window.size, np.uint8)
    body = data[place[BODY] : place[BODY] + place[BODY_SIZE]]
    checks = words[sample[checkpoints.FIRST] : sample[checkpoints.FIRST] + checkpoints.num_words(sample)]
    num_bytes = decode_window(body, place[BODY_OFFSET], sample, checks, window, tables, work, planes)
    if num_bytes < 0:
        return layout.NOT_AS_INDEXED
    counts[layout.BYTES], counts[layout.LEVEL_SHIFT] = header_size + num_bytes, shift
    counts[layout.PIXELS] = window.pixels[2] * window.pixels[3]
    gray = frame[2] == 1
    how = level_box, bounds, flip, bicubic
    planes_to_crop(planes, window.starts, window.strides, window.pixels, window.factors, gray, *how, out)
    return layout.OK


@kernel
def decode_window(
    body: np.ndarray,
    offset: int,
    sample: np.ndarray,
    words: np.ndarray,
    window: Window,
    tables: Tables,
    work: Work,
    planes: np.ndarray,
) -> int:
    """Decodes the MCUs of a window into planes. Kernels take arrays instead of objects: many parameters.

    Args:
        body, offset, sample, words, window: see `segments.read_segments`.
        tables: of the file.
        work: from `empty_work`.
        planes: uint8, filled.

    Returns:
        The number of bytes that were decoded; -1 if they are not what was indexed.
    """
    num_bytes = used_bytes(body, offset, sample, words, window)
    if num_bytes < 0 or num_bytes > 2 * body.size + entropy.SLACK:
        return -1
    data = np.empty(num_bytes + entropy.SLACK, np.uint8)
    segments = np.zeros((count_segments(sample, window), entropy.NUM_SEGMENT_COLUMNS), np.int64)
    num = read_segments(body, offset, sample, words, window, data, segments)
    if num == 0:
        return -1
    step = checkpoints.spacing(sample)
    num_blocks = lay_out_blocks(
        tables, step, window.sides, planes.ctypes.data, window.starts, window.strides, work.blocks
    )
    work.coefficients[:] = 0
    blocks, coefficients = work.blocks[:num_blocks], work.coefficients.ctypes.data
    return num_bytes if entropy.decode_segments(data, segments[:num], blocks, work.lanes, coefficients) else -1

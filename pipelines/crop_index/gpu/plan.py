"""What a GPU must know about each crop by an index, and the bytes that it needs of its file or coarse level.

`plan_crops` finds the MCUs of each crop, and `pack_crops` copies headers and the data between checkpoints, without
stuffed bytes, into one buffer. Both check what `crops.decode_indexed` checks before it decodes. The rest is found by
the GPU: headers and Huffman codes, and at the next checkpoint the position and the DC values.

A packed crop is its data, then its headers, then its segments, 32 bytes each. Data and segments are aligned to 4.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
import fixres.pipelines.roc.decoder.entropy as entropy
import fixres.pipelines.roc.gpu.crop_plan as crop_plan
import fixres.pipelines.roc.layout as layout
from fixres.pipelines.crop_index.crops import BODY, BODY_OFFSET, BODY_SIZE, HEADERS, check_sample
from fixres.pipelines.crop_index.segments import count_segments, read_segments, used_bytes
from fixres.pipelines.crop_index.window import Window, choose_shift, cover
from fixres.pipelines.roc.cut import copy_bytes
from fixres.pipelines.roc.decoder.planes import on_level
from fixres.pipelines.runtime.numba_cache import kernel

_SEGMENT_WORDS = 8  # of 4 bytes, in `IndexedSegment` of kernels/decode_indexed.cuh
_MAX_SEGMENT = 4 * (64 * 62 + 1)  # MAX_INDEXED_WORDS there, in bytes: 64 blocks of 64 codes of at most 31 bits
_ANY_REST = 255  # ANY_REST there
_MAX_BYTES = 1 << 31  # of a crop's data; that of 2**27 pixels has fewer
_ROW = 1 << 16  # the number of an MCU in a window is its row times this plus its column
_SLACK = 64  # bytes behind a packed crop: alignment, and what `unstuff` writes beyond its end


@kernel
def plan_crops(
    data: np.ndarray,
    places: np.ndarray,
    samples: np.ndarray,
    words: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    bicubic: np.ndarray,
    resolution: int,
    inside: bool,
    min_zoom: float,
    plans: np.ndarray,
    level_boxes: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Plans the crops of n samples. Kernels take arrays instead of objects: many parameters.

    Args:
        data, places, samples, words, boxes, flips, bicubic, inside, min_zoom: see `crops.decode_indexed`.
        resolution: output side in pixels.
        plans: int64 (n, 34), filled except for positions, see `roc.gpu.crop_plan`. Zeros if the code is not OK.
        level_boxes: float64 (n, 4), filled: the boxes in decoded pixels.
        codes, counts: as in `crops.decode_indexed`. A code that is not OK is final; the decoder may find other errors.

    Returns:
        The most bytes that `pack_crops` writes.
    """
    total = 0
    for i in range(places.shape[0]):
        sample = samples[i]
        plans[i, :], level_boxes[i, :], counts[i, :] = 0, 1.0, 0
        codes[i] = check_sample(data.size, places[i], sample, words.size)
        if codes[i] == layout.OK:
            codes[i] = layout.check_box(boxes[i], sample[checkpoints.HEIGHT], sample[checkpoints.WIDTH])
        if codes[i] == layout.OK:
            filled = plans[i], level_boxes[i], counts[i]
            how = boxes[i], resolution, inside, bicubic[i], min_zoom
            codes[i] = _plan_crop(data, places[i], sample, words, *how, filled)
        if codes[i] != layout.OK:
            plans[i, :], counts[i, :] = 0, 0
        else:
            plans[i, crop_plan.FLIP], plans[i, crop_plan.BICUBIC] = flips[i], bicubic[i]
            total += counts[i, layout.BYTES] + 4 * _SEGMENT_WORDS * plans[i, crop_plan.NUM_SEGMENTS] + _SLACK
    return total + crop_plan.PADDING


@kernel
def _plan_crop(
    data: np.ndarray,
    place: np.ndarray,
    sample: np.ndarray,
    words: np.ndarray,
    box: np.ndarray,
    resolution: int,
    inside: bool,
    bicubic: bool,
    min_zoom: float,
    filled: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> int:
    """Plans one crop; NUM_SEGMENTS becomes the most that it may have. Returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.

    Args:
        filled: its rows of plans, level boxes and counts.
    """
    plan, level_box, counts = filled
    height, width = sample[checkpoints.HEIGHT], sample[checkpoints.WIDTH]
    shift = choose_shift(box, resolution, min_zoom)
    bounds, scaled = on_level(box, shift, height, width, resolution, inside, bicubic)
    window = cover(sample, shift, bounds)
    if window.pixels[2] * window.pixels[3] > layout.MAX_PIXELS:
        return layout.TOO_LARGE
    body = data[place[BODY] : place[BODY] + place[BODY_SIZE]]
    num_bytes = used_bytes(body, place[BODY_OFFSET], sample, _words_of(words, sample), window)
    if num_bytes < 0 or num_bytes > 2 * body.size + entropy.SLACK or num_bytes >= _MAX_BYTES:
        return layout.NOT_AS_INDEXED
    side = window.sides[0]
    plan[crop_plan.HEADER_SIZE], plan[crop_plan.NUM_SEGMENTS] = (
        sample[checkpoints.HEADER_SIZE],
        count_segments(sample, window),
    )
    whole = (1 << shift) - 1  # with whole multiples of these, rows of planes have a multiple of 8 bytes
    plan[crop_plan.ROWS] = window.rows[1] - window.rows[0]
    plan[crop_plan.COLUMNS] = (window.columns[1] - window.columns[0] + whole) & ~whole
    plan[crop_plan.INTERVAL], plan[crop_plan.SIDE], plan[crop_plan.CHROMA_SIDE] = 1, side, window.sides[1]
    plan[crop_plan.MCU_HEIGHT] = side * sample[checkpoints.BLOCK_ROWS]
    plan[crop_plan.MCU_WIDTH] = side * sample[checkpoints.BLOCK_COLUMNS]
    plan[crop_plan.LEVEL_HEIGHT], plan[crop_plan.LEVEL_WIDTH] = height, width
    plan[crop_plan.GRAY] = sample[checkpoints.NUM_COMPONENTS] == 1
    for k in range(4):
        plan[crop_plan.WINDOW + k], plan[crop_plan.BOUNDS + k], level_box[k] = window.pixels[k], bounds[k], scaled[k]
    crop_plan.count_taps(plan, scaled, resolution, bicubic)
    counts[layout.BYTES], counts[layout.LEVEL_SHIFT] = sample[checkpoints.HEADER_SIZE] + num_bytes, shift
    counts[layout.PIXELS] = window.pixels[2] * window.pixels[3]
    return layout.OK


@kernel
def _words_of(words: np.ndarray, sample: np.ndarray) -> np.ndarray:
    return words[sample[checkpoints.FIRST] : sample[checkpoints.FIRST] + checkpoints.num_words(sample)]


@kernel
def pack_crops(
    data: np.ndarray,
    places: np.ndarray,
    samples: np.ndarray,
    words: np.ndarray,
    plans: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
    out: np.ndarray,
) -> int:
    """Copies what the GPU needs of n crops, and fills their positions in the plans.

    Kernels take arrays instead of objects: many parameters.

    Args:
        data, places, samples, words, plans, codes, counts: as in `plan_crops`. Crops that it refused are skipped. A
            crop whose markers are not where its index has them gets a code, and zeros as its plan and counts.
        out: uint32, as large as `plan_crops` says, filled.

    Returns:
        The number of bytes that were written, a multiple of 4.
    """
    at, packed = 0, out.view(np.uint8)
    for i in range(places.shape[0]):
        if codes[i] == layout.OK:
            codes[i] = _pack_crop(data, places[i], samples[i], words, plans[i], at, packed, out)
            if codes[i] == layout.OK:
                at = plans[i, crop_plan.INDEX] + 4 * _SEGMENT_WORDS * plans[i, crop_plan.NUM_SEGMENTS]
            else:
                plans[i, :], counts[i, :] = 0, 0
    return at


@kernel
def _pack_crop(
    data: np.ndarray,
    place: np.ndarray,
    sample: np.ndarray,
    words: np.ndarray,
    plan: np.ndarray,
    at: int,
    packed: np.ndarray,
    out: np.ndarray,
) -> int:
    """Copies one crop to the byte `at` of the output; returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    shift, bounds = 0, plan[crop_plan.BOUNDS : crop_plan.BOUNDS + 4]
    while plan[crop_plan.SIDE] << shift < 8:
        shift += 1
    covered = cover(sample, shift, bounds)
    # Segments get numbers of MCUs in place of positions in planes.
    window = Window(
        covered.rows,
        covered.columns,
        covered.pixels,
        (1, 1),
        covered.factors,
        covered.starts,
        np.full(3, _ROW, np.int32),
        covered.size,
    )
    body = data[place[BODY] : place[BODY] + place[BODY_SIZE]]
    segments = np.zeros((plan[crop_plan.NUM_SEGMENTS], entropy.NUM_SEGMENT_COLUMNS), np.int64)
    into = packed[at:]
    num = read_segments(body, place[BODY_OFFSET], sample, _words_of(words, sample), window, into, segments)
    if num == 0:
        return layout.NOT_AS_INDEXED
    end = at + segments[num - 1, entropy.START] + segments[num - 1, entropy.SIZE]
    copy_bytes(data, place[HEADERS], packed, end, plan[crop_plan.HEADER_SIZE])
    plan[crop_plan.DATA], plan[crop_plan.DATA_END], plan[crop_plan.HEADER] = at, end, end
    plan[crop_plan.INDEX], plan[crop_plan.NUM_SEGMENTS] = (end + plan[crop_plan.HEADER_SIZE] + 3) // 4 * 4, num
    blocks = sample[checkpoints.BLOCK_ROWS] * sample[checkpoints.BLOCK_COLUMNS] + sample[checkpoints.NUM_COMPONENTS] - 1
    for k in range(num):
        first = plan[crop_plan.INDEX] // 4 + k * _SEGMENT_WORDS
        if not _write_segment(segments[k], blocks, out[first : first + _SEGMENT_WORDS]):
            return layout.NOT_AS_INDEXED
    return layout.OK


@kernel
def _write_segment(segment: np.ndarray, blocks: int, out: np.ndarray) -> bool:
    """Writes a segment as the GPU takes it; False if it is longer than all of its blocks can be.

    Args:
        segment: int64 (NUM_SEGMENT_COLUMNS,), see `roc.decoder.entropy`.
        blocks: of an MCU.
        out: uint32 (8,), filled.
    """
    size, rest = segment[entropy.SIZE], segment[entropy.MAX_REST]
    if rest > entropy.MAX_PADDING:  # it is not decoded to its end
        size, rest = min(size, _MAX_SEGMENT), _ANY_REST
    if size > _MAX_SEGMENT:
        return False
    number = segment[entropy.PLANE_OFFSET + 1]
    row = (number + _ROW // 2) // _ROW
    out[0], out[1] = segment[entropy.START], size
    out[2] = _joined(segment[entropy.SKIPPED_BITS], segment[entropy.MIN_REST], rest, segment[entropy.CHECKED], 8)
    first, shown, end = segment[entropy.FIRST], segment[entropy.SHOWN], segment[entropy.END]
    out[3] = _joined(first // blocks, shown // blocks, end // blocks, 0, 8)
    out[4] = _joined(row, number - row * _ROW, 0, 0, 16)
    before, after = entropy.DC_BEFORE, entropy.DC_AFTER
    out[5] = _joined(segment[before], segment[before + 1], 0, 0, 16)
    out[6] = _joined(segment[before + 2], segment[after], 0, 0, 16)
    out[7] = _joined(segment[after + 1], segment[after + 2], 0, 0, 16)
    return True


@kernel
def _joined(a: int, b: int, c: int, d: int, bits: int) -> np.uint32:
    """Two or four numbers of so many bits in a word, the first one lowest."""
    mask, total = (1 << bits) - 1, 0
    for k, value in enumerate((a, b, c, d)):
        if k * bits < 32:
            total |= (value & mask) << (k * bits)
    return np.uint32(total)

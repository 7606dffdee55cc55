"""Warp instructions of a crop: lengths of the loops in the machine code, times how often a crop runs them.

A warp runs a loop as often as the thread that needs it most. Where a thread has a choice, such as between bilinear and
bicubic, only the path of training crops counts. What is left out runs once a warp or never for sound photographs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.loaders.gpu_projection.counts import WARP, Counts, by_warps
from benchmarks.loaders.gpu_projection.machine_code import Loop, MachineCode, lines_of_function, lines_with
from fixres.pipelines.roc.gpu.crop_plan import BOUNDS, MCU_WIDTH, NUM_TAPS

# Of the kernels' sources: threads of a block of decode_segments, entries of its four lookups, quantization steps and
# Huffman symbols; rows that a block of resample makes at a time, room for their sums, output rows of a thread.
_BLOCK, _LOOKUPS, _STEPS, _SYMBOLS = 128, 4 * 1024, 4 * 64, 4 * 256
_STRIP_ROWS, _STRIP_ROOM, _ROWS_AT_ONCE = 16, 20480, 4
_MARKERS, _HUFFMAN_TABLES, _CHROMA_PIXELS = 8, 4, 4  # of a header; pixels that share a chroma sample, with neighbors

STEPS = ("tables", "decoding", "inverse DCT", "taps", "sums over rows", "sums over columns, colors")
KERNELS = {"fill_taps": STEPS[3:4], "decode_segments": STEPS[:3], "resample": STEPS[4:]}


@dataclass(frozen=True)
class Costs:
    """Instructions of a warp, from the machine code."""

    tables: float
    """Of a block of 128 threads, all its warps: headers, lookups, quantization."""
    segments: float
    """To find a warp's segments and to begin with them."""
    word: float
    """Four stored bytes without their stuffed zeros."""
    code: float
    long_code: float
    """What a code of more than 10 bits takes in addition."""
    block: float
    """Of 64 coefficients, without codes and transform."""
    transform: float
    """Inverse DCT of a block of 64."""
    taps: float
    """Those of an output row or column, without the following."""
    luma_tap: float
    chroma_tap: float
    rows: float
    """Sums over rows of four columns, without the taps."""
    rows_tap: float
    columns: float
    """Four output pixels below one another, without the taps."""
    columns_tap: float

    @classmethod
    def of(cls, code: MachineCode) -> Costs:
        """Those of the kernels."""
        return cls(**_decoding_costs(code), **_taps_costs(code), **_resampling_costs(code))


def _per(loop: Loop, opcode: str, source: str) -> float:
    """Instructions of a turn of an unrolled loop, which has one instruction with the opcode on a source line."""
    return loop.count() / loop.count(opcode, lines_with(source))


def _decoding_costs(code: MachineCode) -> dict[str, float]:
    def loop(source: str, opcode: str = "", is_innermost: bool = True) -> Loop:
        return code.loop("decode_segments", source, opcode, is_innermost)

    threads, warps = 1 / _BLOCK, _BLOCK // WARP
    lookup = _per(loop("tables.lookup[k] ="), "STS", "tables.lookup[k] =")
    filled = _LOOKUPS * lookup + _STEPS * loop("tables.steps[k] =").count()
    filled += _SYMBOLS * loop("tables.symbols[number][rank] =").count()
    walked = _MARKERS * loop("while (at + 4 <= size", is_innermost=False).own
    walked += _HUFFMAN_TABLES * loop("tables.offset[number][length] =", is_innermost=False).own
    outer = ("from += tables.num_fitting", "bool valid = length >= 0", "batch.bytes + crop.data + tables.at[lane]")
    outer += ("i32 row = (from + lane) / columns",)
    one_code, search = loop("k += run + 1;", "STS"), lines_of_function("find_code") | lines_of_function("entry_of")
    block = loop("i32 block_row = component", is_innermost=False)
    passes = (loop("block[(8 * k + column) * step];", "STS"), loop("block[(8 * row + k) * step];", "STS"))
    return {
        "tables": filled * threads * warps + walked,
        "segments": sum(loop(source, is_innermost=False).own for source in outer),
        "word": loop("u32 word = four_bytes(p)").count(),
        "code": one_code.count(without=search),
        "long_code": one_code.count(lines=search),
        "block": block.count(without=block.inner_lines | lines_with("exact")),
        "transform": 8 * sum(one.count() for one in passes),
    }


def _taps_costs(code: MachineCode) -> dict[str, float]:
    def loop(source: str, is_innermost: bool = True) -> Loop:
        return code.loop("fill_taps", source, is_innermost=is_innermost)

    weight = _per(loop("double value = outside"), "F2I", "i64 weight = (i64)floor(")
    luma = _per(loop("total += filter_at("), "I2F", "double distance =") + weight
    quarters = _per(loop("if (weight == 0) continue;"), "LDG", "i32 weight = chroma.bicubic")
    chroma = loop("weights[k] = (u16)weight;", is_innermost=False).own + _CHROMA_PIXELS * quarters
    return {"taps": loop("taps.first[o] = (i32)position", False).own, "luma_tap": luma, "chroma_tap": chroma}


def _resampling_costs(code: MachineCode) -> dict[str, float]:
    def loop(source: str, is_innermost: bool = True) -> Loop:
        return code.loop("resample", source, is_innermost=is_innermost)

    by_rows, by_columns = loop("sums[j].add_fast(word"), loop("sums[j].add_fast(rows[j]")
    columns = loop("i32 y = item / resolution", False)
    normalized = lines_with("else ((u16*)batch.out)") | lines_of_function("to_half") | lines_of_function("to_bfloat16")
    return {
        "rows": loop("i32 y = item / words", False).own,
        "rows_tap": by_rows.count() / by_rows.count("LD.E.U16"),  # a weight in each turn
        "columns": columns.count(without=columns.inner_lines | normalized),
        "columns_tap": by_columns.count() / by_columns.count("LD.E.U16"),
    }


def crop_instructions(costs: Costs, plan: np.ndarray, counts: Counts, side: int, most_blocks: int) -> dict[str, float]:
    """Warp instructions of one training crop in each step.

    Args:
        plan: int64 (34,), see `crop_plan`.
        side: of the output in pixels.
        most_blocks: blocks that share a crop's segments, see `arguments.launches`.
    """
    codes, long_codes = by_warps(counts.codes), by_warps(counts.long_codes)
    turns, long_turns = codes.max(1), long_codes.sum(1)
    num_segments, blocks = counts.codes.shape
    num_blocks = min(most_blocks, -(-num_segments // _BLOCK))
    decoding = costs.segments * len(codes) + costs.word * by_warps(counts.words).max(1).sum()
    decoding += costs.code * turns.sum() + costs.long_code * np.minimum(turns, long_turns).sum()
    decoding += costs.block * len(codes) * blocks
    rows, columns = _resampling(costs, plan, side)
    made = (costs.tables * num_blocks, decoding, costs.transform * len(codes) * blocks, _taps(costs, plan, side))
    return dict(zip(STEPS, (*map(float, made), rows, columns), strict=True))


def _taps(costs: Costs, plan: np.ndarray, side: int) -> float:
    luma, chroma = plan[NUM_TAPS : NUM_TAPS + 2].sum(), plan[NUM_TAPS + 2 : NUM_TAPS + 4].sum()
    return -(-side // WARP) * (2 * costs.taps + float(luma * costs.luma_tap + chroma * costs.chroma_tap))


def _resampling(costs: Costs, plan: np.ndarray, side: int) -> tuple[float, float]:
    """Sums over rows, sums over columns with colors; training crops use the pixels of their box."""
    taps_y, taps_x, chroma_y, chroma_x = plan[NUM_TAPS : NUM_TAPS + 4].tolist()
    low, high = plan[BOUNDS + 2 : BOUNDS + 4].tolist()
    factor = int(plan[MCU_WIDTH]) // 8
    words = (-(-(high - low) // 4), -(-((high - low) // factor + 1) // 4))  # four columns each
    per_row = words[0] + 2 * words[1]
    strip = max(1, min(_STRIP_ROOM // (4 * per_row), _STRIP_ROWS))
    heights = [min(strip, side - top) for top in range(0, side, strip)]
    turns = sum(-(-height * per_row // WARP) for height in heights)
    taps = (words[0] * taps_y + 2 * words[1] * chroma_y) / per_row
    pixels = sum(-(-(-(-height // _ROWS_AT_ONCE) * side) // WARP) for height in heights)
    in_columns = costs.columns + (taps_x + 2 * chroma_x) * costs.columns_tap
    return turns * (costs.rows + taps * costs.rows_tap), pixels * in_columns

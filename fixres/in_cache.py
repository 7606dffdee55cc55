"""Arithmetic on uint8 batches of a CPU, piece by piece, so that floats stay in the core's cache.

A batch as floats is four times its bytes; done whole, every operation fetches it from memory and brings it back. Pieces
are also below the size from which torch wakes other threads for one operation, which on busy cores costs more than it
saves.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_PIECE = 24_576  # floats, 96 KiB: half an image of 128 px
_AT_ONCE = 8  # pixels; of 2 to 32 the fastest


def recoloured_in_cache(images: Tensor, matrices: Tensor, shifts: Tensor) -> Tensor:
    """As `augment_batch.recoloured`: pixels times matrix plus shift, rounded and cut to [0, 255].

    Several pixels at a time are multiplied with a matrix that has the small one on its diagonal: mostly with zeros, yet
    faster than three columns, which fill no vector register.

    Args:
        images: uint8 (B, H, W, 3) on the CPU.
        matrices: float32 (B, 3, 3).
        shifts: float32 (B, 3).
    """
    images = images.contiguous()
    rows = images.view(len(images), -1)
    at_once = _AT_ONCE if rows.shape[1] >= 3 * _AT_ONCE else 1
    wide, long_shifts = _diagonal(matrices, at_once), shifts.repeat(1, at_once)
    out, width = torch.empty_like(rows), 3 * at_once
    values, results = torch.empty(2, _PIECE // width, width)
    pieces = [*_pieces(rows.shape[1] // width * width, _PIECE // width * width)]
    if rows.shape[1] % width:
        pieces.append(slice(rows.shape[1] - width, rows.shape[1]))  # the last pixels, some of them once more
    for k in range(len(rows)):
        for piece in pieces:
            source = rows[k, piece].view(-1, width)
            result = results[: len(source)]
            torch.addmm(long_shifts[k], values[: len(source)].copy_(source), wide[k], out=result)
            out[k, piece].copy_(result.round_().clamp_(0, 255).view(-1))
    return out.view(images.shape)


def _diagonal(matrices: Tensor, num: int) -> Tensor:
    """(B, 3 num, 3 num): the transposed matrices `num` times on the diagonal, zeros elsewhere."""
    wide = matrices.new_zeros(len(matrices), num, 3, num, 3)
    for k in range(num):
        wide[:, k, :, k] = matrices.transpose(1, 2)
    return wide.view(len(matrices), 3 * num, 3 * num)


def blended_in_cache(images: Tensor, weight: float) -> Tensor:
    """Image i with a share of `weight`, image B - 1 - i with the rest, rounded.

    Args:
        images: uint8 (B, H, W, 3) on the CPU.
        weight: in [0, 1].
    """
    rows = images.contiguous().view(len(images), -1)
    out = torch.empty_like(rows)
    buffers = torch.empty(3, _PIECE)
    for one in range((len(rows) + 1) // 2):
        other = len(rows) - 1 - one
        for piece in _pieces(rows.shape[1], _PIECE):
            first, second = rows[one, piece], rows[other, piece]
            a, b, both = (buffer[: len(first)] for buffer in buffers)
            a.copy_(first)
            b.copy_(second)
            out[one, piece].copy_(torch.lerp(a, b, 1 - weight, out=both).round_())
            out[other, piece].copy_(torch.lerp(b, a, 1 - weight, out=both).round_())
    return out.view(images.shape)


def _pieces(length: int, most: int) -> Iterator[slice]:
    for start in range(0, length, most):
        yield slice(start, min(start + most, length))

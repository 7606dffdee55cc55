"""The DALI graph of engine `roc-dali`: decode a cut, slice the box out, resize and mirror in one step."""

from __future__ import annotations

from typing import Any

import numpy as np
from nvidia.dali import fn, types

from pipelines.loaders.dali import common as dali
from pipelines.loaders.dali.cutter import Cuts
from pipelines.loaders.dali.feed import Feed, external_sources
from pipelines.spec import LoaderConfig


def numbers_of(cuts: Cuts, flips: np.ndarray, resolution: int, inside: bool) -> tuple[np.ndarray, ...]:
    """What the graph needs beside the encoded images, arrays of (B, 2) each.

    In training start and shape of the slice, in pixels of the cut; then the output's height and width, and the box on
    what is resized as two corners. A flip swaps their columns: DALI mirrors where a box ends before it begins.
    """
    yxhw, before = cuts.boxes, ()
    if inside:
        before = (cuts.used[:, :2].astype(np.int32), cuts.used[:, 2:].astype(np.int32))
        yxhw = yxhw - np.pad(cuts.used[:, :2], ((0, 0), (0, 2)))
    first, last = yxhw[:, :2].astype(np.float32), (yxhw[:, :2] + yxhw[:, 2:]).astype(np.float32)
    first[flips, 1], last[flips, 1] = last[flips, 1], first[flips, 1]
    return (*before, np.full((len(flips), 2), resolution, np.float32), first, last)


def sources(feed: Feed, inside: bool) -> list[Any]:
    """Nodes of the encoded images and of what `numbers_of` makes."""
    return external_sources(feed, [types.INT32] * (2 if inside else 0) + [types.FLOAT] * 3)


def decoded(encoded: Any, config: LoaderConfig) -> Any:
    """Node of the cuts' pixels, uint8 HWC RGB."""
    return fn.decoders.image(encoded, **dali.decoder_arguments(config), **dali.gpu_arguments(config))


def resized(pixels: Any, numbers: list[Any], inside: bool) -> Any:
    """Node of the finished crops.

    DALI's resize looks over a box's edge as Pillow's does with `box=`. In testing it should, there the resized image is
    cropped; in training the box is sliced out first, for RandomResizedCrop crops and then resizes.
    """
    if inside:
        start, shape, *numbers = numbers
        pixels = fn.slice(pixels, start=start, shape=shape, axis_names="HW")
    size, first, last = numbers
    linear = types.INTERP_LINEAR
    return fn.resize(pixels, size=size, roi_start=first, roi_end=last, interp_type=linear, antialias=True)

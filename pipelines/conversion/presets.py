"""Sizes of stored images that have a name, for `fixres convert --preset`; docs/roc.md has what each of them costs."""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """How images are stored."""

    max_side: int
    """Longest side in pixels."""
    quality: int
    """JPEG quality."""


# With ImageNet's training images, `small` fits half of a GPU's memory of 80 GB, and `medium` of 141 GB; engine roc-gpu
# keeps such files there (`loaders/residency.py`).
PRESETS = {"small": Preset(320, 85), "medium": Preset(400, 90), "large": Preset(500, 90)}

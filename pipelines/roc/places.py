"""Where samples lie in a file, and where a crop lies on a level: what the kernels check before they touch anything."""

from __future__ import annotations

import numpy as np

from pipelines.formats.beton_layout import MODE_RAW
from pipelines.formats.beton_parts import BetonParts
from pipelines.formats.beton_reader import BetonReader
from pipelines.roc.decoder.planes import used_range
from pipelines.roc.layout import BAD_BOX, OK, OUTSIDE_FILE, WRONG_SIZE
from pipelines.runtime.numba_cache import kernel
from pipelines.spec import InputError

MAX_PIXELS = 1 << 27  # a decoder's planes then need at most 400 MB

# Columns of a place: where a sample lies in the file.
IMAGE_START, IMAGE_SIZE, ROC_START, ROC_SIZE, IMAGE_HEIGHT, IMAGE_WIDTH = range(6)
NUM_PLACE = 6
_ALL = slice(None)
# Columns of the counts.
BYTES, PIXELS, LEVEL_SHIFT = range(3)
NUM_COUNTS = 3


def places_of(reader: BetonReader | BetonParts, indices: np.ndarray | slice = _ALL) -> np.ndarray:
    """int64 (n, 6): where samples of a file lie and their sizes, as the kernels take it."""
    if (reader.modes[indices] == MODE_RAW).any():
        raise InputError(
            f"{reader.path} holds raw pixels, and engine='roc' reads JPEG images; "
            "convert the data with --format roc, or choose --engine ffcv"
        )
    places = np.zeros((len(reader.sizes[indices]), NUM_PLACE), np.int64)
    places[:, :2] = reader.image_spans[indices]
    if "roc" in reader.field_names:
        places[:, 2:4] = reader.field_spans("roc")[indices]
    places[:, 4:] = reader.sizes[indices]
    return places


@kernel
def check_place(place: np.ndarray, file_size: int, box: np.ndarray) -> int:
    """Whether a sample's fields lie in the file and its box in the image."""
    for start, size in ((place[IMAGE_START], place[IMAGE_SIZE]), (place[ROC_START], place[ROC_SIZE])):
        if start < 0 or size < 0 or start > file_size or size > file_size - start:
            return OUTSIDE_FILE
    height, width = place[IMAGE_HEIGHT], place[IMAGE_WIDTH]
    if not (1 <= height <= 65535 and 1 <= width <= 65535):
        return WRONG_SIZE
    slack = 1e-6  # a NaN fails every one of these
    if box[0] >= -slack and box[1] >= -slack and box[2] > 0 and box[3] > 0:
        if box[0] + box[2] <= height + slack and box[1] + box[3] <= width + slack:
            return OK
    return BAD_BOX


@kernel
def on_level(
    box: np.ndarray, shift: int, height: int, width: int, resolution: int, inside: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a level may be used, int64 (4,) (y low, y high, x low, x high), and the box there, float64."""
    scaled, bounds, round_up = np.empty(4), np.empty(4, np.int64), (1 << shift) - 1
    for k in range(4):
        scaled[k] = max(box[k] / (1 << shift), 0.0)
    extents = ((height + round_up) >> shift, (width + round_up) >> shift)
    for axis in range(2):
        low, high = used_range(scaled[axis], scaled[axis + 2], extents[axis], resolution, inside)
        bounds[2 * axis], bounds[2 * axis + 1] = low, high
    return bounds, scaled

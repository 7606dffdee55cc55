"""Looks at a finished file of RoC records before it gets its name."""

from __future__ import annotations

import numpy as np

from pipelines.beton import BetonReader
from pipelines.roc.decode import decode_samples
from pipelines.roc.layout import ERRORS, OK, describe
from pipelines.roc.places import NUM_COUNTS, places_of
from pipelines.spec import BadSampleError

_NUM_DECODED = 64
_RESOLUTION = 16


def check_records(reader: BetonReader) -> None:
    """Reads the tables of all records, and decodes some samples whole from their finest and their coarsest level.

    Raises:
        InputError: a record does not fit its sample.
    """
    for index in range(len(reader)):
        size = (int(side) for side in reader.sizes[index])
        describe(reader.field_bytes("roc", index), int(reader.image_spans[index, 1]), *size)
    chosen = np.unique(np.linspace(0, len(reader) - 1, _NUM_DECODED).astype(np.int64))
    places = places_of(reader)[chosen]
    boxes = np.column_stack([np.zeros((len(chosen), 2)), reader.sizes[chosen]])
    out = np.empty((len(chosen), _RESOLUTION, _RESOLUTION, 3), np.uint8)
    codes, counts = np.empty(len(chosen), np.int64), np.empty((len(chosen), NUM_COUNTS), np.int64)
    flips = np.zeros(len(chosen), bool)
    for min_zoom in (np.inf, 1e-9):
        decode_samples(reader.data, places, boxes, flips, True, min_zoom, out, codes, counts)
        if (bad := np.flatnonzero(codes != OK)).size:
            index = int(chosen[bad[0]])
            raise BadSampleError(f"{reader.name(index)}: {ERRORS[int(codes[bad[0]])]}; convert again", index)

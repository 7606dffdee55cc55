"""Verifies a finished file of RoC records before it gets its final name."""

from __future__ import annotations

import numpy as np

from fixres.pipelines.formats.beton_reader import BetonData, BetonReader
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.layout import ERRORS, LEVEL_SHIFT, NUM_COUNTS, OK, describe
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.spec import BadSampleError, InputError

_NUM_DECODED = 64
_RESOLUTION = 16


def check_records(reader: BetonReader) -> None:
    """Reads the level tables of all records and decodes all levels of 64 evenly spaced samples.

    Raises:
        BadSampleError: a record does not fit its sample.
    """
    for index in range(len(reader)):
        _levels(reader, index)
    for index in np.unique(np.linspace(0, len(reader) - 1, _NUM_DECODED).astype(np.int64)).tolist():
        check_sample(reader, index)


def check_sample(reader: BetonData, index: int) -> None:
    """Decodes every segment of all levels of a sample; raises BadSampleError if that fails."""
    table, box = locate_samples(reader, np.array([index])), np.array([[0.0, 0.0, *reader.sizes[index]]])
    out = np.empty((1, _RESOLUTION, _RESOLUTION, 3), np.uint8)
    codes, counts, flips = np.empty(1, np.int64), np.empty((1, NUM_COUNTS), np.int64), np.zeros(1, bool)
    for level in _levels(reader, index):
        # With this value, `choose_level` takes exactly this level.
        min_zoom = min(reader.sizes[index]) / (_RESOLUTION * 2 ** level["shift"])
        decode_samples(reader.data, table, box, flips, flips, True, min_zoom, out, codes, counts)
        if codes[0] != OK:
            raise BadSampleError(f"{reader.name(index)}: {ERRORS[int(codes[0])]}; convert again", index)
        assert counts[0, LEVEL_SHIFT] == level["shift"]


def _levels(reader: BetonData, index: int) -> list[dict[str, int]]:
    height, width = (int(side) for side in reader.sizes[index])
    try:
        return describe(bytes(reader.field_bytes("roc", index)), int(reader.image_spans[index, 1]), height, width)
    except InputError as error:
        raise BadSampleError(f"{reader.name(index)}: {error}; convert again", index) from None

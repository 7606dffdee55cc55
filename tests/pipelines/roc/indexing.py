"""The index of any JPEG with restart markers, found by looking for them, for records that `encode` does not make."""

from __future__ import annotations

import numpy as np

from pipelines.roc.layout import Level

_SOS, _SOF0, _DRI = 0xDA, 0xC0, 0xDD


def index_jpeg(jpeg: bytes, shift: int = 0) -> Level:
    """Headers and segments of a baseline JPEG whose restart interval divides its rows."""
    data = np.frombuffer(jpeg, np.uint8)
    frame, interval, header_size = _read_headers(jpeg)
    height, width = int.from_bytes(jpeg[frame : frame + 2], "big"), int.from_bytes(jpeg[frame + 2 : frame + 4], "big")
    components = jpeg[frame + 4]
    sampling = jpeg[frame + 6]
    mcu_height, mcu_width = (8 * (sampling & 15), 8 * (sampling >> 4)) if components == 3 else (8, 8)
    columns, rows = -(-width // mcu_width), -(-height // mcu_height)
    assert interval and columns % interval == 0
    scan = data[header_size:]
    marker = np.flatnonzero((scan[:-1] == 0xFF) & (scan[1:] >= 0xD0) & (scan[1:] <= 0xD9)) + 2
    lengths = np.diff(marker, prepend=0)
    assert len(lengths) == rows * columns // interval and marker[-1] == len(scan) and lengths.max() < 65536
    return Level(
        jpeg, height, width, header_size, frame, shift, mcu_height, mcu_width, interval, lengths.astype(np.uint16)
    )


def _read_headers(jpeg: bytes) -> tuple[int, int, int]:
    """Position of the frame's height, restart interval (0 if none), bytes of all headers."""
    frame, interval, at = 0, 0, 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, size = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == _SOF0:
            frame = at + 5
        elif marker == _DRI:
            interval = int.from_bytes(jpeg[at + 4 : at + 6], "big")
        at += 2 + size
        if marker == _SOS and frame:
            return frame, interval, at
    raise AssertionError("no baseline JPEG")

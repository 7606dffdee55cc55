"""The segments of a JPEG file: which coding and colors it has, where it ends, and whether scans are missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

START, END, SCAN = 0xD8, 0xD9, 0xDA
BASELINE, PROGRESSIVE = 0xC0, 0xC2
_ADOBE, _JFIF, _TEMPORARY = 0xEE, 0xE0, 0x01
_TABLES = (0xC4, 0xC8, 0xCC)  # Huffman tables, a reserved marker and arithmetic conditioning are not frames
_FRAMES = tuple(marker for marker in range(0xC0, 0xD0) if marker not in _TABLES)
_NEEDED = (*_FRAMES, *_TABLES, SCAN, 0xDB, 0xDD)  # to decode: also quantization tables and the restart interval
# Inside a scan's data, 0xFF is followed by 0 or is a restart marker; a run of 0xFF before a marker is allowed.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Rows and columns of luma samples for each chroma sample that all decoders know: 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1.
_LUMA = (0x11, 0x21, 0x22, 0x12, 0x41)
_NUM_COEFFICIENTS = 64
_MISSING = 0xFF


class Segment(NamedTuple):
    """A marker and the position of what follows it, its two bytes of length included."""

    marker: int
    start: int
    end: int


@dataclass
class JpegHeaders:
    """What the segments of a file say."""

    frame: int | None = None
    """The frame's marker: 0xC0 baseline, 0xC2 progressive, ...; None if there is none."""
    precision: int = 8
    """Bits of a sample."""
    size: tuple[int, int] = (0, 0)
    """Height, width; the height is 0 if it stands behind the pixels (DNL marker)."""
    components: dict[int, int] = field(default_factory=dict)
    """Identifier to sampling factors, horizontal in the high four bits."""
    jfif: bool = False
    """Whether there is a JFIF segment, which means YCbCr or gray."""
    adobe: int | None = None
    """The color transform of Adobe's segment: 0 none, 1 YCbCr, 2 YCCK; -1 if the segment is too short."""
    end: int | None = None
    """The position behind the end marker; None if there is none."""
    unread: dict[int, bytearray] = field(default_factory=dict)
    """For each component the number of low bits of each coefficient that no scan holds; 255 if no scan holds any."""

    @property
    def lacks_scans(self) -> bool:
        """Whether bits of coefficients are in no scan, as when a progressive file was cut between two scans."""
        return any(any(bits) for bits in self.unread.values())

    @property
    def plain(self) -> bool:
        """Whether all decoders decode it, and to the same colors.

        True for baseline and progressive files, gray or YCbCr beyond doubt, with a usual chroma subsampling.
        """
        ids, samplings = tuple(self.components), tuple(self.components.values())
        if self.frame not in (BASELINE, PROGRESSIVE) or self.precision != 8:
            return False
        if len(samplings) == 1:
            return samplings == (0x11,)
        if len(samplings) != 3 or samplings[0] not in _LUMA or samplings[1:] != (0x11, 0x11):
            return False
        return self.adobe in (None, 1) and (self.jfif or self.adobe == 1 or ids == (1, 2, 3)) and ids != tuple(b"RGB")


def segments(data: bytes | memoryview) -> Iterator[Segment]:
    """The segments of a JPEG file, from behind the start marker to the end marker. Data may be damaged."""
    position = 2
    while found := _MARKER.search(data, position):
        marker, start = data[found.end() - 1], found.end()
        alone = marker in (START, END, _TEMPORARY)
        yield Segment(marker, start, start if alone else start + int.from_bytes(data[start : start + 2], "big"))
        if marker == END:
            return
        position = start if alone else max(start, start + int.from_bytes(data[start : start + 2], "big"))


def read_headers(data: bytes | memoryview) -> JpegHeaders:
    """Reads the segments of a JPEG file, which may be damaged."""
    headers = JpegHeaders()
    for marker, start, end in segments(data):
        body = bytes(data[start + 2 : end])
        if marker in _FRAMES and headers.frame is None:
            _read_frame(headers, marker, body)
        elif marker == _JFIF and body[:5] == b"JFIF\0":
            headers.jfif = True
        elif marker == _ADOBE and body[:5] == b"Adobe":
            headers.adobe = body[11] if len(body) > 11 else -1
        elif marker == SCAN:
            _read_scan(headers, body)
        elif marker == END:
            headers.end = start
    return headers


def bare(data: bytes | memoryview) -> bytes:
    """The file with only what its pixels need, so that odd headers give a decoder nothing to complain about.

    It has no metadata and no bytes between segments. The spectral selection of sequential scans, which decoders ignore
    after a warning, is the whole.
    """
    kept, frame, pixels = [b"\xff\xd8"], None, None
    for marker, start, end in segments(data):
        if pixels is not None:
            kept.append(bytes(data[pixels : start - 2]))
        body, pixels = bytes(data[start:end]), end if marker == SCAN else None
        frame = marker if frame is None and marker in _FRAMES else frame
        if marker == SCAN and frame in (BASELINE, BASELINE + 1):
            body = body[:-3] + b"\0\x3f\0"
        if marker == END or marker in _NEEDED:
            kept.append(bytes((0xFF, marker)) + body)
    return b"".join(kept)


def _read_frame(headers: JpegHeaders, marker: int, body: bytes) -> None:
    headers.frame = marker
    if len(body) < 6:
        return
    headers.precision = body[0]
    headers.size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    layers = body[6 : 6 + 3 * body[5]]
    headers.components = dict(zip(layers[::3], layers[1::3], strict=False))
    headers.unread = {name: bytearray([_MISSING] * _NUM_COEFFICIENTS) for name in headers.components}


def _read_scan(headers: JpegHeaders, body: bytes) -> None:
    """Notes which bits of which coefficients a scan holds."""
    num = body[0] if body else 0
    first, last, bits = body[-3:] if len(body) == 4 + 2 * num else (0, 0, 0)
    if headers.frame != PROGRESSIVE:
        first, last, bits = 0, _NUM_COEFFICIENTS - 1, 0
    for name in body[1 : 1 + 2 * num : 2]:
        if name in headers.unread:
            span = slice(first, min(last, _NUM_COEFFICIENTS - 1) + 1)
            headers.unread[name][span] = bytes([bits & 15]) * len(headers.unread[name][span])

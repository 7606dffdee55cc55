"""JPEG files that decoders treat differently, made from ordinary ones by editing their segments."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 56
_SMALL = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
PICTURE = Image.fromarray(_SMALL).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def saved(**options: object) -> bytes:
    buffer = io.BytesIO()
    mode = options.pop("mode", "RGB")
    PICTURE.convert(mode).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def with_segment(data: bytes, marker: int, body: bytes, *, jfif: bool = True) -> bytes:
    """Adds a segment at the beginning, or puts it in the place of the JFIF segment."""
    rest = data[2:] if jfif else data[2 + 18 :]
    return data[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body + rest


def adobe(transform: int) -> bytes:
    return b"Adobe\0\x64\0\0\0\0" + bytes([transform])


def sampled(factors: tuple[int, int, int], num_units: int = 6) -> bytes:
    """A row of MCUs with any sampling factors: the blocks of a gray file, shared out among three components."""
    num_blocks = num_units * sum((factor >> 4) * (factor & 15) for factor in factors)
    wide, high = (8 * max(factor >> shift & 15 for factor in factors) for shift in (4, 0))
    buffer = io.BytesIO()
    # Little contrast, so that blocks of it as chroma stay within the colors that RGB has.
    PICTURE.convert("L").resize((8 * num_blocks, 8)).point(lambda v: 112 + v // 8).save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    layers = b"".join(bytes((name, factor, 0)) for name, factor in enumerate(factors, 1))
    size = high.to_bytes(2, "big") + (wide * num_units).to_bytes(2, "big")
    return b"".join((
        data[:frame], b"\xff\xc0\0\x11\x08", size, b"\3", layers, data[frame + 13 : scan],
        b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0", data[scan + 10 :],
    ))  # fmt: skip


def renamed(data: bytes, ids: bytes) -> bytes:
    """The components get other identifiers, in the frame and in the scan."""
    data = bytearray(data)
    frame, scan = data.index(b"\xff\xc0") + 10, data.index(b"\xff\xda") + 5
    for k, name in enumerate(ids):
        data[frame + 3 * k] = data[scan + 2 * k] = name
    return bytes(data)


def cut_scan(data: bytes, share: float) -> bytes:
    """Keeps a share of the last scan's data, and the end marker."""
    start = data.rindex(b"\xff\xda") + 14
    return data[: start + int(share * (len(data) - start))].rstrip(b"\xff") + b"\xff\xd9"


PLAIN = {
    "4:2:0": saved(),
    "4:2:2": saved(subsampling="4:2:2"),
    "4:4:4": saved(subsampling="4:4:4"),
    "4:1:1": saved(subsampling="4:1:1"),
    "4:4:0": sampled((0x12, 0x11, 0x11)),
    "gray": saved(mode="L"),
    "progressive": saved(progressive=True),
    "progressive 4:4:4": saved(progressive=True, subsampling="4:4:4"),
    "restart markers": saved(restart_marker_blocks=2),
    "few colors": saved(optimize=True, quality=20),
    "markers in EXIF": saved(exif=b"Exif\0\0" + b"\xff\xd9\xff\xda" * 40),
    "Adobe YCbCr": with_segment(saved(), 0xEE, adobe(1)),
    "identifiers 0, 1, 2": renamed(saved(), b"\0\1\2"),
    "fill bytes": saved()[:2] + b"\xff\xff" + saved()[2:],
}
"""Files that all decoders decode alike."""

_SCAN = saved().index(b"\xff\xda")
ODD = {
    "RGB by Adobe": with_segment(saved(subsampling="4:4:4"), 0xEE, adobe(0), jfif=False),
    "RGB by Adobe with JFIF": with_segment(saved(subsampling="4:4:4"), 0xEE, adobe(0)),
    "RGB by identifiers": saved(keep_rgb=True),
    "RGB identifiers with JFIF": renamed(saved(), b"RGB"),
    "unknown Adobe transform": with_segment(saved(), 0xEE, adobe(2), jfif=False),
    "unknown JFIF version": saved().replace(b"JFIF\0\1", b"JFIF\0\7"),
    "unnamed colors": with_segment(renamed(saved(), b"\5\6\7"), 0xFE, b"no JFIF", jfif=False),
    "bytes between headers": saved()[:_SCAN] + b"\1\2\3" + saved()[_SCAN:],
    "padding": saved()[:-2] + b"\0" * 20 + saved()[-2:],
    "selection of a sequential scan": saved()[: _SCAN + 11] + b"\0\0\0" + saved()[_SCAN + 14 :],
    "sampling 4x2": sampled((0x42, 0x11, 0x11)),
    "sampling 2x4": sampled((0x24, 0x11, 0x11)),
    "sampling 3x1": sampled((0x31, 0x11, 0x11)),
    "sampling 1x4": sampled((0x14, 0x11, 0x11)),
    "unequal chroma": sampled((0x22, 0x21, 0x12)),
    "chroma 2x1": sampled((0x21, 0x21, 0x21)),
    "CMYK": saved(mode="CMYK"),
}
"""Files that are sound, but that some decoders refuse, warn of or give other colors."""

_CODES = saved(subsampling="4:4:4")
_SCANS = [at for at in range(len(PLAIN["progressive"])) if PLAIN["progressive"][at : at + 2] == b"\xff\xda"]
DAMAGED = {
    **{f"half of {name}": cut_scan(PLAIN[name], 0.5) for name in PLAIN},
    "last bytes": cut_scan(PLAIN["4:2:0"], 0.97),
    "half with an odd header": with_segment(cut_scan(PLAIN["4:2:0"], 0.5), 0xEE, adobe(2), jfif=False),
    "half of sampling 4x2": cut_scan(ODD["sampling 4x2"], 0.5),
    "wrong codes": _CODES[:700] + b"\xff\0" * 20 + _CODES[740:],
    "data left over": _CODES[:-2] + bytes(range(1, 60)) + _CODES[-2:],
    "restart marker lost": PLAIN["restart markers"].replace(b"\xff\xd1", b"\x55\x55", 1),
    "scans missing": PLAIN["progressive"][: _SCANS[3]] + b"\xff\xd9",
}
"""Files that Pillow decodes without a word, with pixels that are made up."""

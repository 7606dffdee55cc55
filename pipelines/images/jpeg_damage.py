"""Finds damage in JPEG files for which decoders only warn.

libjpeg-turbo invents pixels for missing or wrong data and gives a warning, which Pillow does not pass on. simplejpeg
does. It decodes at an eighth of the size here, and gray, so that little but the Huffman codes is left to do: 0.37 of
the time that Pillow takes to decode a photograph of ImageNet.
"""

from __future__ import annotations

import random
import re
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg

from fixres.pipelines.images.input_formats import MAX_PIXELS, named_errors, open_image, to_rgb
from fixres.pipelines.images.jpeg_file import BASELINE, JpegHeaders, bare, read_headers
from fixres.pipelines.spec import BadSampleError

DamagedOption = Literal["refuse", "accept"]
"""Whether to refuse images of which parts are damaged, or to accept the pixels that the decoder makes up for them."""

_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_FILLER = bytes(random.Random(0).randrange(255) for _ in range(64))  # without 0xFF, which begins a marker


class JpegVerdict(NamedTuple):
    """What decoders think of a JPEG file."""

    data: bytes
    """The file, without what follows its end marker."""
    plain: bool
    """Whether all decoders decode it to the same pixels, without a warning."""
    damage: str | None
    """What is wrong with its pixels."""


def is_jpeg(data: bytes | memoryview) -> bool:
    """Whether the data begins like a JPEG file."""
    return bytes(data[:2]) == b"\xff\xd8"


def examine_jpeg(data: bytes) -> JpegVerdict:
    """Decodes a JPEG file that Pillow can open, and looks for damage.

    Damage is data that is missing, is no valid code or is left over, and scans that are missing.
    """
    headers = read_headers(data)
    if headers.end is None:
        return JpegVerdict(data, False, None)  # Pillow refuses it
    data = data if headers.end == len(data) else data[: headers.end]
    if headers.lacks_scans:
        return JpegVerdict(data, False, "a part of its scans is missing")
    if _complaint(data, headers) is None:
        return JpegVerdict(data, headers.plain, None)
    return JpegVerdict(data, False, _damage(bare(data), headers))


def decode_plain(data: bytes, is_checked: bool = False) -> np.ndarray | None:
    """Pillow's pixels of a plain file without damage, in 0.6 to 0.9 of Pillow's time; None for another file.

    Args:
        data: a JPEG file.
        is_checked: `open_image` has accepted its size and number of scans; else only baseline files are decoded.

    Returns:
        uint8 HWC RGB in [0, 255].
    """
    headers = read_headers(data)
    if not headers.plain or headers.lacks_scans or headers.end is None:
        return None
    height, width = headers.size
    if not is_checked and (headers.frame != BASELINE or not 0 < height * width <= MAX_PIXELS):
        return None
    try:
        return simplejpeg.decode_jpeg(data[: headers.end], "RGB")
    except ValueError:
        return None


def check_jpeg(data: bytes, name: str, index: int, damaged: DamagedOption = "refuse") -> JpegVerdict:
    """As `examine_jpeg`; raises BadSampleError for damage, unless `damaged` is "accept"."""
    verdict = examine_jpeg(data)
    if verdict.damage is not None and damaged == "refuse":
        raise BadSampleError(f"{name}: the JPEG is damaged ({verdict.damage}); replace it", index)
    return verdict


def _damage(data: bytes, headers: JpegHeaders) -> str | None:
    """What is wrong with the pixels of a file whose headers are bare."""
    complaint = _complaint(data, headers)
    if complaint is None or _is_padding(data, complaint):
        return None
    if _complaint(data, headers, strict=False) is None:
        return complaint
    # simplejpeg does not take it at all, e.g. for its sampling, so it cannot tell.
    return "a part of its pixels has no data" if _lacks_data(data) else None


def _complaint(data: bytes, headers: JpegHeaders, strict: bool = True) -> str | None:
    """The first error, and warning if `strict`, of libjpeg-turbo; None if there is none."""
    colors = "CMYK" if len(headers.components) == 4 else "GRAY"
    try:
        simplejpeg.decode_jpeg(data, colors, min_height=1, min_width=1, min_factor=8, strict=strict)
    except ValueError as error:
        return " ".join(str(error).split()).removeprefix("Corrupt JPEG data: ")
    return None


def _is_padding(data: bytes, complaint: str) -> bool:
    """Whether a complaint is about equal bytes between the pixels and the end marker."""
    found = _EXTRANEOUS.search(complaint)
    return found is not None and len(set(data[-2 - int(found[1]) : -2])) == 1


def _lacks_data(data: bytes) -> bool:
    """Whether bytes before the end marker would become pixels, because the data of some is missing."""
    try:
        ends = [_pixels(data[:-2] + rest + b"\xff\xd9") for rest in (b"", _FILLER)]
    except BadSampleError:
        return False  # Pillow does not decode it, and says so
    return not np.array_equal(*ends)


def _pixels(data: bytes) -> np.ndarray:
    with open_image(data, "") as image, named_errors("", -1):
        return np.asarray(to_rgb(image))

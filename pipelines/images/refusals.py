"""Why Pillow does not read an image file, in plain words."""

from __future__ import annotations

import io
import struct

import simplejpeg
from PIL import Image

from fixres.pipelines.images.jpeg_file import JpegHeaders, read_headers

_CODINGS = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical progressive",
    0xC7: "hierarchical lossless",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded progressive",
    0xCB: "arithmetic-coded lossless",
    0xCD: "arithmetic-coded hierarchical",
    0xCE: "arithmetic-coded hierarchical progressive",
    0xCF: "arithmetic-coded hierarchical lossless",
}
_HEIC = (b"ftypheic", b"ftypheix")
_JPEG_LS = b"\xff\xf7"


def why_not_opened(data: bytes, formats: tuple[str, ...]) -> str:
    """Why none of Pillow's `formats` takes the file."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page (HTML)"
    if data[4:12] in _HEIC:
        return "it is HEIC, a format of phones, which is not read; convert it to JPEG"
    for name in formats:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(data[:16]) is True:
            try:
                factory(io.BytesIO(data), "").close()
            except Exception as error:  # of many types
                return (name == "JPEG" and _why_not_jpeg(data)) or _in_words(error, name)
    return f"it is none of {', '.join(formats)}"


def why_not_decoded(data: bytes | memoryview, error: OSError) -> str:
    """Why Pillow does not decode a JPEG file that it opened and that is not truncated."""
    if found := _why_not_jpeg(bytes(data)):
        return found
    try:
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1, min_factor=8, strict=False)
    except ValueError as reason:
        if "subsampling" not in str(reason):  # what simplejpeg says of all headers that it cannot read
            return " ".join(str(reason).split())
    return str(error)


def _why_not_jpeg(data: bytes) -> str:
    headers = read_headers(data)
    if headers.frame is None:
        return "it is a JPEG-LS file" if _JPEG_LS in data[:4096] else "the header of the JPEG is incomplete"
    if headers.precision != 8:
        return f"a JPEG of {headers.precision} bits per sample, only 8 are supported"
    if headers.frame in _CODINGS:
        return f"a JPEG whose coding is not supported: {_CODINGS[headers.frame]}"
    return _why_not_headers(headers)


def _why_not_headers(headers: JpegHeaders) -> str:
    if 0 in headers.size:
        return f"the header of the JPEG says {headers.size[1]} x {headers.size[0]} pixels"
    if headers.adobe == -1:
        return "the APP14 segment of the JPEG is too short"
    return ""


def _in_words(error: Exception, name: str) -> str:
    text = " ".join(str(error).split())
    if isinstance(error.__cause__, (struct.error, IndexError)) or not text or "unpack" in text:
        return f"a part of the {name} header is too short"
    return f"a damaged {name} file: {text}"

"""Opens untrusted image files and converts their pixels to 8-bit RGB.

The reference is torchvision's default loader, `Image.open(file).convert("RGB")`: transparency is dropped, color
profiles are ignored, the first frame of an animation is used, and the EXIF orientation is only applied on request.
Pixels differ from the reference's in one case. Values of more than 8 bits keep their high byte here, as Pillow does it
for 16-bit RGB and for 16-bit gray with alpha; in the reference, `convert` clips 16-bit gray above 255 to white.

Files may be malicious: only formats of photographs are tried (Pillow would pass PostScript named x.jpg to Ghostscript),
and the size is checked before memory is allocated.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from fixres.pipelines.images.refusals import why_not_decoded, why_not_opened
from fixres.pipelines.spec import BadSampleError

ExifOption = Literal["ignore", "apply"]
"""Whether to ignore the EXIF orientation, as torchvision's default loader does, or to rotate the pixels upright."""

# 256 MB as RGB in Pillow; decoding takes 0.3 to 1.2 GB, the most for WebP. Pillow's own limit is higher and global.
MAX_PIXELS = 1 << 26
MAX_SCANS = 500  # of a progressive JPEG; encoders write about ten, and each needs a pass over all pixels
_MAX_SCANNED_PIXELS = 1 << 31  # by all passes together; they take up to 10 s
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "JPEG2000", "AVIF")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of large images and odd metadata. Important cases are errors here. The filter is global, because
# warnings.catch_warnings affects other threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_image(data: bytes | memoryview, name: str, index: int = -1) -> Image.Image:
    """Opens an untrusted image file; reads its header only.

    Args:
        data: the whole file.
        name: the sample's file and position, for errors.
        index: the sample's index, carried by errors.

    Raises:
        BadSampleError: it is not an image, or one that must not be decoded.
    """
    if len(data) == 0:
        raise BadSampleError(f"{name}: the file is empty; replace or remove it", index)
    with named_errors(name, index):
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError:  # its message contains the address of a buffer
            raise _cannot(name, index, why_not_opened(bytes(data), _FORMATS)) from None
        except Image.DecompressionBombError as error:  # its message begins with the number of pixels
            raise _too_large(name, index, next(iter(re.findall("[0-9]+", str(error))), "too many")) from None
    if 0 in image.size:
        raise _cannot(name, index, "it has no pixels")
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, index, f"{image.width} x {image.height}")
    if image.info.get("progressive"):
        allowed = min(MAX_SCANS, _MAX_SCANNED_PIXELS // (image.width * image.height))
        if bytes(data).count(b"\xff\xda") > allowed:
            raise BadSampleError(f"{name}: a JPEG of more than {allowed} scans; save it again or remove it", index)
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """The pixels of an opened image as 8-bit RGB.

    If they are RGB already, this is the image itself, because a copy would double the memory. Call it within
    `named_errors`, because Pillow raises errors of many types.
    """
    _load(image)
    image = _eight_bits(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def rotate_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image rotated upright, given its EXIF orientation."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def orientation(image: Image.Image) -> int:
    """EXIF orientation of an opened image, 1 (upright) to 8. It is 1 if it is missing or invalid, as in viewers.

    Pillow rotates TIFF files itself while it loads them, and gives 1.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # for damaged EXIF data Pillow raises errors of many types
        return 1
    return value if value in _TURNS else 1


@contextmanager
def named_errors(name: str, index: int) -> Iterator[None]:
    """Converts Pillow's errors on a damaged file to a BadSampleError with its name.

    Pillow's format plugins raise OSError, SyntaxError, struct.error, KeyError and more.
    """
    try:
        yield
    except (MemoryError, BadSampleError):
        raise
    except Exception as error:
        raise _cannot(name, index, " ".join(str(error).split()) or type(error).__name__) from None


def _load(image: Image.Image) -> None:
    file = getattr(image, "fp", None)  # Pillow forgets it when loading fails
    try:
        image.load()
    except OSError as error:
        is_jpeg = image.format in ("JPEG", "MPO") and isinstance(file, io.BytesIO)
        if not is_jpeg or "broken data stream" not in str(error):
            raise
        raise ValueError(why_not_decoded(file.getvalue(), error)) from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 9 to 16 bits as 8-bit gray; other images as they are.

    Raises:
        ValueError: the format does not define which value is white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        # Pillow scales 9 to 15 bits to 16, except in TIFF files.
        num_bits = image.tag_v2[ExifTags.Base.BitsPerSample][0] if image.format == "TIFF" else 16
        return Image.fromarray((np.asarray(image) >> (num_bits - 8)).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit or signed pixels, whose white is not defined; save it with 8 bits")
    return image


def _cannot(name: str, index: int, reason: str) -> BadSampleError:
    return BadSampleError(f"{name}: cannot be decoded ({reason}); replace or remove it", index)


def _too_large(name: str, index: int, has: str) -> BadSampleError:
    return BadSampleError(f"{name}: has {has} pixels, {MAX_PIXELS} are allowed; shrink or remove it", index)

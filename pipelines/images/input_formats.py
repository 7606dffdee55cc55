"""Image files from anywhere: which are opened, which are refused, and how their pixels become 8-bit RGB.

The reference is torchvision's default loader, `Image.open(file).convert("RGB")`: alpha and transparent colors lose
their transparency, color profiles are ignored, of an animation the first picture counts, EXIF orientation is not
applied unless asked for. Pixels differ from the reference's in one case, where `convert` clips: numbers of more than
8 bits keep their high byte here, as Pillow itself does it for 16-bit RGB and for 16-bit gray with alpha, while 16-bit
gray becomes white there wherever it is above 255.

Files may be made to harm: only formats of photographs are tried (Pillow would hand PostScript named x.jpg to
Ghostscript), and the size is looked at before memory is taken.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pipelines.spec import BadSampleError

ExifOption = Literal["ignore", "apply"]
"""What is done with the EXIF orientation: nothing, as torchvision's default loader, or pixels are turned upright."""

# Half a gigabyte as Pillow holds RGB. Pillow's own limit is somewhat higher and one for the whole process: setting it
# from here would disturb the other threads.
MAX_PIXELS = 1 << 27
MAX_SCANS = 500  # of a progressive JPEG; cameras and encoders make about ten, each costs a pass over all pixels
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

# Pillow warns of large images and of odd metadata. What matters of it is an error here; the rest would only fill the
# user's screen. For the whole process, because warnings.catch_warnings disturbs other threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_image(data: bytes | memoryview, name: str, index: int = -1) -> Image.Image:
    """Opens an image file that may be of a stranger; reads its header only.

    Args:
        data: the whole file.
        name: what a person needs to find the sample; used in errors.
        index: the sample's index, carried by errors.

    Raises:
        BadSampleError: it is no image, or one that should not be decoded.
    """
    if len(data) == 0:
        raise BadSampleError(f"{name}: the file is empty; replace or remove it", index)
    with named_errors(name, index):
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError:  # its own text prints the address of a buffer
            raise _cannot(name, index, _guess(data)) from None
        except Image.DecompressionBombError:
            raise _too_large(name, index, f"more than {MAX_PIXELS}") from None
    if 0 in image.size:
        raise _cannot(name, index, "it has no pixels")
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, index, f"{image.width} x {image.height}")
    if image.info.get("progressive") and bytes(data).count(b"\xff\xda") > MAX_SCANS:
        raise BadSampleError(f"{name}: a JPEG of more than {MAX_SCANS} scans; save it anew or remove it", index)
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """The pixels of an opened image as 8-bit RGB. Call it within `named_errors`, for Pillow raises all kinds.

    The result carries none of the file's metadata: no profile, EXIF or comment gets into what is made of it.
    """
    image.load()
    rgb = _eight_bits(image).convert("RGB")
    rgb.info = {}
    return rgb


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is meant to be seen, given its EXIF orientation."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def orientation(image: Image.Image) -> int:
    """EXIF orientation of an opened image, 1 (upright) to 8; like viewers, 1 if there is none that can be read.

    Pillow itself turns TIFF files while loading them, so that 1 is left.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF data: Pillow raises whatever it stumbles over
        return 1
    return value if value in _TURNS else 1


@contextmanager
def named_errors(name: str, index: int) -> Iterator[None]:
    """Turns whatever Pillow raises on a damaged file into a BadSampleError that names it.

    Its format plugins raise what they stumble over: OSError, SyntaxError, struct.error, KeyError and more.
    """
    try:
        yield
    except (MemoryError, BadSampleError):
        raise
    except Exception as error:
        raise _cannot(name, index, " ".join(str(error).split()) or type(error).__name__) from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 9 to 16 bits as 8-bit gray; other images as they are.

    Raises:
        ValueError: numbers of which nobody knows which one is white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        # Pillow scales 9 to 15 bits to 16, except in TIFF files.
        num_bits = image.tag_v2[ExifTags.Base.BitsPerSample][0] if image.format == "TIFF" else 16
        return Image.fromarray((np.asarray(image) >> (num_bits - 8)).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit or signed pixels, of which the file does not say what is white; save it with 8 bits")
    return image


def _guess(data: bytes | memoryview) -> str:
    start = bytes(data[:512]).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page (HTML)"
    return f"it is none of {', '.join(_FORMATS)}"


def _cannot(name: str, index: int, reason: str) -> BadSampleError:
    return BadSampleError(f"{name}: cannot be decoded ({reason}); replace or remove it", index)


def _too_large(name: str, index: int, has: str) -> BadSampleError:
    return BadSampleError(f"{name}: has {has} pixels, {MAX_PIXELS} are allowed; shrink or remove it", index)

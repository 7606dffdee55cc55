"""Single images: decoding as the reference does it, and re-encoding for storage.

The reference decoder is Pillow as torchvision's ImageFolder calls it: `Image.open(file).convert("RGB")`. EXIF
orientation is not applied there, so it is not applied here either, and stored sizes are those of the coded pixels.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.spec import BadSampleError, InputError

MIN_STORED_SIDE = 8
MAX_STORED_SIDE = 65500  # libjpeg's limit
_BASELINE, _PROGRESSIVE = 0xC0, 0xC2


class EncodedSample(NamedTuple):
    """One sample as the writers of data files take it.

    Attributes:
        image: a JPEG file.
        height: rows in pixels.
        width: columns in pixels.
        label: class number.
        index: the sample's number in its source.
        extra: further byte strings, which only `pipelines.beton_writer` stores.
    """

    image: bytes
    height: int
    width: int
    label: int
    index: int
    extra: tuple[bytes, ...] = ()


def decode_rgb(data: bytes | memoryview, name: str, index: int = -1) -> np.ndarray:
    """Pixels of an encoded image, exactly as torchvision's default loader gives them.

    Args:
        data: a whole image file of any format Pillow knows.
        name: what a person needs to find the sample; used in errors.
        index: the sample's index, carried by the error.

    Returns:
        uint8 HWC RGB in [0, 255], contiguous.

    Raises:
        BadSampleError: the image is damaged, truncated or no image.
    """
    return np.asarray(_decode(data, name, index))


def image_size(data: bytes | memoryview, name: str, index: int = -1) -> tuple[int, int]:
    """(height, width) of an encoded image in pixels, read from its header only."""
    with _open(data, name, index) as image:
        return image.height, image.width


def fit_jpeg(data: bytes, name: str, index: int, max_side: int, quality: int) -> tuple[bytes, int, int]:
    """The image as a JPEG file whose long side is at most `max_side`.

    A baseline or progressive JPEG (RGB or grey) that fits is passed through, byte for byte; it is decoded all the
    same, so that a truncated one is found now and not in the middle of a training run. Everything else is decoded,
    downscaled and encoded with 4:2:0 chroma.

    Args:
        data: a whole image file.
        name: what a person needs to find the sample.
        index: the sample's index, carried by errors.
        max_side: pixels.
        quality: libjpeg's scale, 1 to 100; used for images that are encoded again.

    Returns:
        JPEG bytes, height, width.
    """
    image = _decode(data, name, index)
    if max(image.size) <= max_side and _passes(data, name, index):
        return data, image.height, image.width
    image = shrink(image, max_side)
    return encode_jpeg(image, quality), image.height, image.width


def check_fit(max_side: int, quality: int) -> None:
    """Raises InputError unless `fit_jpeg` can work with these."""
    if not MIN_STORED_SIDE <= max_side <= MAX_STORED_SIDE:
        raise InputError(f"max_side={max_side} must be {MIN_STORED_SIDE} to {MAX_STORED_SIDE} pixels; 500 is customary")
    if not 1 <= quality <= 100:
        raise InputError(f"quality={quality} must be 1 to 100; 90 is customary")


def shrink(image: Image.Image, max_side: int) -> Image.Image:
    """`image` downscaled so that its long side is `max_side` pixels, or unchanged if it already fits.

    With Lanczos, because it keeps most of what a later crop and resize would have seen in the original: over 50
    ImageNet photographs stored at 0.5 and 0.8 of their size, the 112 and 128 pixel crops came within a mean PSNR of
    38.7 dB; 38.6 with bicubic, 37.5 Hamming, 37.4 bilinear, 35.5 box, which is what ffcv's writer (OpenCV's
    INTER_AREA) does. It takes 9 ms instead of 3.
    """
    long_side = max(image.size)
    if long_side <= max_side:
        return image
    width, height = (max(1, round(side * max_side / long_side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encode_jpeg(image: Image.Image | np.ndarray, quality: int) -> bytes:
    """A baseline JPEG file with 4:2:0 chroma.

    Args:
        image: RGB; uint8 HWC if an array.
        quality: libjpeg's scale, 1 to 100.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def _decode(data: bytes | memoryview, name: str, index: int) -> Image.Image:
    with _open(data, name, index) as image:
        try:
            return image.convert("RGB")
        except MemoryError:
            raise
        except Exception as error:
            raise _bad(name, index, error) from None


def _open(data: bytes | memoryview, name: str, index: int) -> Image.Image:
    if len(data) == 0:
        raise BadSampleError(f"{name}: the file is empty; replace or remove it", index)
    try:
        return Image.open(io.BytesIO(data))
    except MemoryError:
        raise
    # On damaged files Pillow's format plugins raise whatever they stumble over: OSError, SyntaxError, struct.error,
    # KeyError, DecompressionBombError and more.
    except Exception as error:
        raise _bad(name, index, error) from None


def _bad(name: str, index: int, error: Exception) -> BadSampleError:
    # Pillow's own text for this one prints the address of a buffer.
    known = isinstance(error, UnidentifiedImageError)
    reason = "no image format that Pillow knows" if known else " ".join(str(error).split()) or type(error).__name__
    return BadSampleError(f"{name}: cannot be decoded ({reason}); replace or remove it", index)


def _passes(data: bytes, name: str, index: int) -> bool:
    """Whether every JPEG decoder we feed (libjpeg-turbo, nvJPEG) gives RGB for these bytes. CMYK ones do not."""
    with _open(data, name, index) as image:
        plain = image.format == "JPEG" and image.mode in ("RGB", "L")
    return plain and _frame_marker(data) in (_BASELINE, _PROGRESSIVE)


def _frame_marker(data: bytes) -> int | None:
    """The JPEG frame's marker (0xC0 baseline, 0xC2 progressive, ...), or None if there is none before the scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # DHT, JPG and DAC are no frames
            return marker
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None

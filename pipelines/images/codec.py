"""Decodes images, and fits them to a maximum size for storage.

`fixres.pipelines.images.input_formats` defines the reference pixels and the treatment of odd files.
"""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
from PIL import Image

from fixres.pipelines.images.input_formats import (
    ExifOption,
    named_errors,
    open_image,
    orientation,
    rotate_upright,
    to_rgb,
)
from fixres.pipelines.images.jpeg_damage import DamagedOption, check_jpeg, decode_plain, is_jpeg
from fixres.pipelines.spec import InputError

MIN_STORED_SIDE = 8
MAX_STORED_SIDE = 65500  # libjpeg's limit
# libjpeg can decode at 1/2, 1/4 or 1/8 of the size with less time and memory. Measured over 40 photographs stored at
# 0.12 of their size with quality 90, against a full decode and Lanczos without JPEG compression: PSNR is 32.98 dB with
# a full decode, 32.97 dB if at least 3 times the wanted pixels a side are decoded (in half of the time), 32.80 dB with
# 2 times, and 30.96 dB if libjpeg may decode at the wanted size.
_DRAFT_MARGIN = 3


def decode_rgb(data: bytes | memoryview, name: str, index: int = -1, *, exif: ExifOption = "ignore") -> np.ndarray:
    """Pixels of an encoded image, like those of torchvision's default loader (see `images.input_formats`).

    Args:
        data: a whole image file.
        name: the sample's file and position, for errors.
        index: the sample's index, for errors.
        exif: "apply" rotates the image upright.

    Returns:
        uint8 HWC RGB in [0, 255], contiguous.

    Raises:
        BadSampleError: the image is damaged, truncated or too large, or the data is not an image.
    """
    if exif == "ignore" and is_jpeg(data) and (pixels := decode_plain(bytes(data))) is not None:
        return pixels  # the same, sooner
    with open_image(data, name, index) as image, named_errors(name, index):
        rgb = to_rgb(image)
        return np.asarray(rotate_upright(rgb, orientation(image)) if exif == "apply" else rgb)


def image_size(data: bytes | memoryview, name: str, index: int = -1) -> tuple[int, int]:
    """(height, width) of an encoded image in pixels, read from its header only; EXIF orientation is not applied."""
    with open_image(data, name, index) as image:
        return image.height, image.width


def fit_jpeg(
    data: bytes,
    name: str,
    index: int,
    max_side: int,
    quality: int,
    *,
    exif: ExifOption = "ignore",
    damaged: DamagedOption = "refuse",
) -> tuple[bytes, int, int]:
    """The image as a JPEG file whose long side is at most `max_side`.

    A JPEG that fits is stored unchanged if all decoders decode it to the same pixels (`JpegHeaders.plain`), unless it
    must be rotated; bytes behind its end marker are left out. Its data is still decoded, so that damage is found before
    training. Other images are decoded, downscaled and encoded with 4:2:0 chroma.

    Args:
        data: a whole image file.
        name: the sample's file and position, for errors.
        index: the sample's index, for errors.
        max_side: pixels.
        quality: libjpeg's scale, 1 to 100; used for images that are encoded again.
        exif: "apply" stores the image upright, "ignore" leaves the pixels as they are.
        damaged: "accept" takes a damaged JPEG's pixels as Pillow decodes them.

    Returns:
        JPEG bytes, height, width.

    Raises:
        BadSampleError: as `decode_rgb`, and for a damaged JPEG unless it is accepted.
    """
    with open_image(data, name, index) as image:
        verdict = check_jpeg(data, name, index, damaged) if is_jpeg(data) else None
        if verdict and verdict.plain and image.format == "JPEG" and max(image.size) <= max_side:
            if exif == "ignore" or orientation(image) == 1:
                return verdict.data, image.height, image.width
        fitted = _fit(image, name, index, max_side, exif)
    return encode_jpeg(fitted, quality), fitted.height, fitted.width


def fit_rgb(
    data: bytes,
    name: str,
    index: int,
    max_side: int,
    *,
    exif: ExifOption = "ignore",
    damaged: DamagedOption = "refuse",
) -> Image.Image:
    """The image as RGB pixels, downscaled so that its long side is at most `max_side`; see `fit_jpeg`."""
    with open_image(data, name, index) as image:
        fits = max(image.size) <= max_side
        if image.format == "JPEG" and fits and (pixels := decode_plain(data, True)) is not None:
            rgb = Image.fromarray(pixels)
            return rotate_upright(rgb, orientation(image)) if exif == "apply" else rgb
        if is_jpeg(data):
            check_jpeg(data, name, index, damaged)
        return _fit(image, name, index, max_side, exif)


def decode_sound(data: bytes, name: str, index: int = -1) -> np.ndarray:
    """As `decode_rgb`, but refuses JPEG files with damage of which decoders only warn."""
    pixels = decode_rgb(data, name, index)
    if is_jpeg(data):
        check_jpeg(data, name, index)
    return pixels


def check_fit(max_side: int, quality: int, *, exif: str = "ignore") -> None:
    """Raises InputError unless these are valid settings of `fit_jpeg`."""
    if not MIN_STORED_SIDE <= max_side <= MAX_STORED_SIDE:
        raise InputError(f"max_side={max_side} must be {MIN_STORED_SIDE} to {MAX_STORED_SIDE} pixels; 500 is usual")
    if not 1 <= quality <= 100:
        raise InputError(f"quality={quality} must be 1 to 100; 90 is usual")
    if exif not in get_args(ExifOption):
        raise InputError(f"exif={exif!r} must be one of {', '.join(get_args(ExifOption))}")


def shrink(image: Image.Image, max_side: int) -> Image.Image:
    """`image` downscaled so that its long side is `max_side` pixels, or unchanged if it already fits.

    It uses Lanczos, because later crops are then closest to the original. Measured over 50 photographs of ImageNet
    stored at 0.5 and 0.8 of their size, the mean PSNR of crops of 112 and 128 pixels is 38.7 dB; 38.6 with bicubic,
    37.5 Hamming, 37.4 bilinear, and 35.5 with the box filter of ffcv's writer (OpenCV's INTER_AREA). Lanczos takes 9 ms
    instead of 3.
    """
    if max(image.size) <= max_side:
        return image
    return image.resize(_fitting(image.size, max_side), Image.Resampling.LANCZOS)


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


def _fit(image: Image.Image, name: str, index: int, max_side: int, exif: ExifOption) -> Image.Image:
    """Like `shrink`, but large JPEG files are decoded at a reduced size if that makes no difference."""
    with named_errors(name, index):
        size, box = _fitting(image.size, max_side), None
        if size != image.size and image.format in ("JPEG", "MPO"):
            _, box = image.draft(None, tuple(_DRAFT_MARGIN * side for side in size)) or (None, None)
        rgb = to_rgb(image)
        if size != rgb.size:
            rgb = rgb.resize(size, Image.Resampling.LANCZOS, box)
        rgb = rotate_upright(rgb, orientation(image)) if exif == "apply" else rgb
        rgb.info = {}  # profile, EXIF data and comments, which Pillow would store
        return rgb


def _fitting(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    long_side = max(size)
    if long_side <= max_side:
        return size
    width, height = (max(1, round(side * max_side / long_side)) for side in size)
    return width, height

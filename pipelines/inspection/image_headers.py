"""Sizes, formats and bytes of a data set's images, read from their headers without decoding any image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fixres.pipelines.images.input_formats import open_image
from fixres.pipelines.spec import BadSampleError, InputError, Source

_SEED = 0


class Headers(NamedTuple):
    """Headers of some images."""

    sizes: np.ndarray  # int64 (N, 2), height and width in pixels
    num_bytes: np.ndarray  # int64 (N,), size of each file
    formats: tuple[str, ...]  # Pillow's name of each file's format
    bad_samples: tuple[str, ...]  # a line for each image that cannot be opened


class ImageSizes(NamedTuple):
    """Sizes of all or some images."""

    sizes: np.ndarray  # int64 (N, 2), height and width in pixels
    bad_samples: tuple[str, ...]  # a line for each image that cannot be opened


def random_samples(source: Source, max_looked_at: int) -> list[int]:
    """At most `max_looked_at` random indices, sorted; the same each time."""
    if max_looked_at < 1:
        raise InputError(f"{max_looked_at} samples to look at are too few; use at least 1")
    return np.sort(np.random.default_rng(_SEED).permutation(len(source))[:max_looked_at]).tolist()


def read_headers(source: Source, max_looked_at: int) -> Headers:
    """Headers of random images, the same each time.

    Raises:
        InputError: none of them can be opened.
    """
    sizes, num_bytes, formats, bad = [], [], [], []
    for index in random_samples(source, max_looked_at):
        try:
            data = source.read(index)
            with open_image(data, source.name(index), index) as image:
                sizes.append((image.height, image.width))
                formats.append(image.format or "unknown")
                num_bytes.append(len(data))
        except BadSampleError as error:
            bad.append(str(error))
    if not sizes:
        reason = f"all of {len(bad)} images looked at cannot be used, the first is {bad[0]}" if bad else "no images"
        raise InputError(f"{reason}; give a data set with images")
    return Headers(np.array(sizes, np.int64), np.array(num_bytes, np.int64), tuple(formats), tuple(bad))


def image_sizes(source: Source, max_looked_at: int = 2000) -> ImageSizes:
    """Sizes of all images if the source has a table of them (.beton files), else of at most `max_looked_at`.

    Raises:
        InputError: none of the images can be opened.
    """
    random_samples(source, max_looked_at)  # checks the number
    if (table := getattr(source, "sizes", None)) is not None:
        return ImageSizes(np.asarray(table, np.int64), ())
    headers = read_headers(source, max_looked_at)
    return ImageSizes(headers.sizes, headers.bad_samples)

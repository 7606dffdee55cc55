"""Heights and widths of a data set's images, without decoding any.

A .beton file has those of all images in its tables. Of other data the headers of some images are read, chosen by
chance and the same ones each time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.images.input_formats import open_image
from pipelines.spec import BadSampleError, InputError, Source

_SEED = 0


class ImageSizes(NamedTuple):
    """Sizes of the images that were looked at.

    Attributes:
        sizes: int64 (N, 2), height and width in pixels.
        bad_samples: a line for each image that was looked at and cannot be used.
    """

    sizes: np.ndarray
    bad_samples: tuple[str, ...]


def image_sizes(source: Source, max_looked_at: int = 2000) -> ImageSizes:
    """Sizes of all images if a table has them, else of at most `max_looked_at`.

    Raises:
        InputError: none of those looked at is usable.
    """
    if max_looked_at < 1:
        raise InputError(f"{max_looked_at} samples to look at are too few; take at least 1")
    if (table := getattr(source, "sizes", None)) is not None:
        return ImageSizes(np.asarray(table, np.int64), ())
    chosen = np.random.default_rng(_SEED).permutation(len(source))[:max_looked_at]
    sizes, bad = [], []
    for index in np.sort(chosen).tolist():
        try:
            with open_image(source.read(index), source.name(index), index) as image:
                sizes.append((image.height, image.width))
        except BadSampleError as error:
            bad.append(str(error))
    if not sizes:
        reason = f"all of {len(bad)} images looked at cannot be used, the first is {bad[0]}" if bad else "no images"
        raise InputError(f"{reason}; give a data set with images")
    return ImageSizes(np.array(sizes, np.int64), tuple(bad))

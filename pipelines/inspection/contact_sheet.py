"""Pictures of stored images and of the crops that an engine delivers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fixres.pipelines.images.codec import fit_rgb
from fixres.pipelines.runtime.atomic_files import atomic_file
from fixres.pipelines.spec import BadSampleError, InputError, Loader, Source, one_line

_GAP = 4  # pixels between crops
_CAPTION_HEIGHT = 14
_SEED = 0
MAX_PIXELS = 1 << 27
"""The largest picture; it takes 400 MB of memory."""


def check_size(num: int, side: int) -> None:
    """Raises InputError if a picture of `num` images of `side` pixels has more than MAX_PIXELS."""
    if num * (side + _GAP) ** 2 > MAX_PIXELS:
        raise InputError(
            f"a picture of {num} images of {side} px is too large; ask for {MAX_PIXELS // (side + _GAP) ** 2} images "
            "at most, or for smaller ones"
        )


def first_crops(loader: Loader, num: int) -> tuple[list[np.ndarray], list[str]]:
    """The first `num` images of an epoch and their captions.

    Returns:
        uint8 (r, r, 3) each, and "index class" each.
    """
    images: list[np.ndarray] = []
    captions: list[str] = []
    for batch in loader:
        for image, label, index in zip(batch.images.cpu(), batch.labels.tolist(), batch.indices.tolist(), strict=True):
            images.append(image.numpy().copy())
            captions.append(f"{index} {loader.classes[label]}")
            if len(images) == num:
                return images, captions
    return images, captions


def stored_images(source: Source, num: int, side: int) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Random images of a data set, the same each time. Images that cannot be decoded are skipped.

    Args:
        source: the data set.
        num: number of images, at most.
        side: pixels. Larger images are downscaled to fit into this square; smaller ones are centered in it.

    Returns:
        uint8 (side, side, 3) each, "index class" each, and a line for each image that cannot be decoded.
    """
    images: list[np.ndarray] = []
    captions: list[str] = []
    bad: list[str] = []
    for index in np.random.default_rng(_SEED).permutation(len(source))[: 2 * num].tolist():
        if len(images) == num:
            break
        try:
            image = fit_rgb(source.read(index), source.name(index), index, side)
        except BadSampleError as error:
            bad.append(str(error))
            continue
        square = Image.new("RGB", (side, side), "white")
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        images.append(np.asarray(square))
        captions.append(one_line(f"{index} {source.classes[source.labels[index]]}"))
    if not images:
        raise InputError(f"all of {len(bad)} images tried cannot be decoded, the first is {bad[0]}")
    return images, captions, bad


def draw_sheet(rows: Sequence[tuple[str, list[np.ndarray], list[str]]], num_columns: int) -> Image.Image:
    """Draws images in a grid, with a heading for each group.

    Args:
        rows: heading, images (uint8 (r, r, 3), all of one size within a group) and captions.
        num_columns: images side by side.
    """
    side = max(image.shape[0] for _, images, _ in rows for image in images)
    step_x, step_y = side + _GAP, side + _GAP + _CAPTION_HEIGHT
    lines = sum(-(-len(images) // num_columns) for _, images, _ in rows)
    sheet = Image.new("RGB", (num_columns * step_x + _GAP, lines * step_y + len(rows) * 2 * _CAPTION_HEIGHT), "white")
    canvas, top = ImageDraw.Draw(sheet), 0
    for heading, images, captions in rows:
        canvas.text((_GAP, top + 4), heading, fill="black")
        top += 2 * _CAPTION_HEIGHT
        for k, (image, caption) in enumerate(zip(images, captions, strict=True)):
            x, y = _GAP + k % num_columns * step_x, top + k // num_columns * step_y
            sheet.paste(Image.fromarray(image), (x, y))
            canvas.text((x, y + image.shape[0]), caption[: max(1, side // 6)], fill="black")
        top += -(-len(images) // num_columns) * step_y
    return sheet


def save_png(sheet: Image.Image, path: Path) -> None:
    """Writes a PNG file atomically."""
    with atomic_file(path, overwrite=True) as partial:
        sheet.save(partial, "PNG")

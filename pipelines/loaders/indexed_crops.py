"""Crops of images in files that stay as they are: from the checkpoints of an index, or else of the whole image.

A crop that needs no more than half of the pixels a side comes from the image's coarse level, if the index has one. Its
file is then not read; that it has not changed is known from its size and times.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.crop_index.crops import (
    BODY,
    BODY_SIZE,
    HEADERS,
    NUM_PLACE_COLUMNS,
    compile_decoder,
    decode_indexed,
)
from fixres.pipelines.crop_index.index import Checkpoints, CropIndex
from fixres.pipelines.crop_index.store import join
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.loaders.pillow import resized_crop
from fixres.pipelines.roc.layout import BYTES, ERRORS, LEVEL_SHIFT, NUM_COUNTS, OK, PIXELS
from fixres.pipelines.runtime.numba_cache import waits_for_compilation
from fixres.pipelines.runtime.process_pool import start_aside
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.spec import MIN_ZOOM, BadSampleError, Crop, Source, TrainCrop, zoom_of

_SIZE = [checkpoints.HEIGHT, checkpoints.WIDTH]
Draw = Callable[[np.ndarray], Sequence[Boxes]]
"""The boxes of each view for images of these sizes: int64 (N, 2), height and width."""


class Filled(NamedTuple):
    """What was read and decoded for a batch.

    Attributes:
        sizes: int64 (N, 2), height and width of the images.
        counts: int64 (N, 3), the columns of `roc.layout`: bytes and pixels of all views, shift of the last one.
        problems: for each image without a crop, by its place in the batch, what is wrong with it.
    """

    sizes: np.ndarray
    counts: np.ndarray
    problems: dict[int, str]


class _Stored(NamedTuple):
    """JPEG files with checkpoints, as the kernel takes them.

    Attributes:
        data: uint8, the files.
        places: int64 (m, 4).
        found: their checkpoints.
        rows: int64 (2, N): which file has each image of the batch, and which its coarse level; -1 for none.
    """

    data: np.ndarray
    places: np.ndarray
    found: Checkpoints
    rows: np.ndarray


class Chosen(NamedTuple):
    """The crops of a view that are decoded from checkpoints, as kernels take them.

    Attributes:
        slots: int64 (m,), their places in the batch.
        shifts: int64 (m,), 1 for those that come from the coarse level, else 0.
        places, samples: see `crop_index.crops.decode_indexed`.
        boxes: float64 (m, 4), in pixels of the file or of the level.
        flips, bicubic: bool (m,).
    """

    slots: np.ndarray
    shifts: np.ndarray
    places: np.ndarray
    samples: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    bicubic: np.ndarray


class Collected(NamedTuple):
    """Everything that the crops of a batch are made of.

    Attributes:
        filled: sizes and problems, and the counts of images that are decoded whole.
        stored: the others.
        whole: pixels of the images that are decoded whole, by their places in the batch.
        boxes: of each view.
        is_coarse: bool (views, N), which crops come from the coarse level.
    """

    filled: Filled
    stored: _Stored
    whole: dict[int, np.ndarray]
    boxes: Sequence[Boxes]
    is_coarse: np.ndarray

    def chosen(self, view: int) -> Chosen:
        """What is decoded from checkpoints, for each image from its file or from its coarse level."""
        boxes, is_coarse = self.boxes[view], self.is_coarse[view]
        rows = np.where(is_coarse, self.stored.rows[1], self.stored.rows[0])
        slots = np.flatnonzero(rows >= 0)
        rows, shifts = rows[slots], is_coarse[slots].astype(np.int64)
        parts = self.stored.places[rows], self.stored.found.samples[rows]
        return Chosen(
            slots, shifts, *parts, boxes.yxhw[slots] / (1 << shifts)[:, None], boxes.flip[slots], boxes.bicubic[slots]
        )


class IndexedCrops:
    """Makes crops of the images of a source. Threads may share it.

    Attributes:
        index: the index; images that it does not know are scanned and added.
        inside, min_zoom: see `crop_index.crops.decode_indexed`.
    """

    def __init__(self, source: Source, crop: Crop, min_zoom: float | None) -> None:
        self._source, self._crop = source, crop
        self.inside = isinstance(crop, TrainCrop)
        self.min_zoom = MIN_ZOOM if min_zoom is None else min_zoom  # 0.7 is too coarse here, and saves little
        self._coarse_zoom = zoom_of(crop, min_zoom)
        self.index = CropIndex(source)

    def fill(self, indices: np.ndarray, draw: Draw, views: Sequence[np.ndarray]) -> Filled:
        """Makes one or more crops of each of some images.

        Args:
            indices: int64 (N,), positions in the source.
            draw: gives the boxes.
            views: uint8 (N, r, r, 3) each, filled except for images with problems.

        Raises:
            InputError: the index is damaged.
        """
        collected = self.collect(indices, draw, [view.shape[1] for view in views])
        for number, view in enumerate(views):
            self._decode(indices, collected, number, view)
            for slot, pixels in self.whole_crops(collected, number, view.shape[1]):
                view[slot] = pixels
        return collected.filled

    def collect(self, indices: np.ndarray, draw: Draw, sides: Sequence[int]) -> Collected:
        """Reads some images, scans those that the index does not know, and decodes those that it has no checkpoints of.

        Arguments are those of `fill`; `sides` are those of the views' crops in pixels.

        Raises:
            InputError: the index is damaged.
        """
        filled = Filled(
            np.ones((len(indices), 2), np.int64), np.zeros((len(indices), NUM_COUNTS), np.int64), problems={}
        )
        stamps = self.index.stamps(indices)
        is_coarse = self._choose(indices, stamps, draw, sides)
        images = self._read(indices, np.flatnonzero(~is_coarse.all(axis=0)), filled.problems)
        stored = self._find(indices, stamps, images, is_coarse.any(axis=0))
        has_file = stored.rows >= 0
        filled.sizes[has_file[1]] = self.index.sizes(indices[has_file[1]])
        filled.sizes[has_file[0]] = stored.found.samples[stored.rows[0, has_file[0]]][:, _SIZE]
        whole = self._decode_whole(indices, [slot for slot in images if not has_file[0, slot]], images, filled)
        return Collected(filled, stored, whole, draw(filled.sizes), is_coarse)

    def _choose(self, indices: np.ndarray, stamps: np.ndarray, draw: Draw, sides: Sequence[int]) -> np.ndarray:
        """bool (views, N): which crops come from the coarse level."""
        have_level = self.index.have_level(indices, stamps)
        if not have_level.any():
            return np.zeros((len(sides), len(indices)), bool)
        sizes = np.maximum(self.index.sizes(indices), 1)
        wanted = [2 * self._coarse_zoom * side for side in sides]
        lengths = [boxes.yxhw[:, 2:].min(axis=1) for boxes in draw(sizes)]
        return have_level & np.array([length >= one for length, one in zip(lengths, wanted, strict=True)])

    def _find(
        self, indices: np.ndarray, stamps: np.ndarray, images: dict[int, bytes], is_coarse: np.ndarray
    ) -> _Stored:
        """The files and the coarse levels with their checkpoints.

        Args:
            indices, stamps: of the batch.
            images: by their places in the batch.
            is_coarse: bool (N,), whether the coarse level is needed.
        """
        rows, slots = np.full((2, len(indices)), -1), np.array(list(images), np.int64)
        levels, level_found = self.index.levels(indices[is_coarse])
        data, spans = join([*images.values(), *levels])
        found = self.index.find(indices[slots], stamps[slots], data, spans[: len(slots)])
        indexed = np.flatnonzero(found.samples[:, checkpoints.KIND] == checkpoints.INDEXED)
        rows[0, slots[indexed]], rows[1, is_coarse] = indexed, len(slots) + np.arange(len(levels))
        level_found.samples[:, checkpoints.FIRST] += found.words.size
        found = Checkpoints(*map(np.concatenate, zip(found, level_found, strict=True)))
        return _Stored(data, _places(spans, found.samples), found, rows)

    def _read(self, indices: np.ndarray, slots: np.ndarray, problems: dict[int, str]) -> dict[int, bytes]:
        """The bytes of the images at some places of the batch, by these."""
        images = {}
        for slot, one in zip(slots.tolist(), indices[slots].tolist(), strict=True):
            try:
                images[slot] = self._source.read(one)
            except BadSampleError as error:
                problems[slot] = str(error)
        return images

    def _decode_whole(
        self, indices: np.ndarray, slots: Sequence[int], images: dict[int, bytes], filled: Filled
    ) -> dict[int, np.ndarray]:
        """The pixels of images without checkpoints."""
        whole = {}
        for slot in slots:
            index = int(indices[slot])
            try:
                whole[slot] = decode_rgb(images[slot], self._source.name(index), index)
            except BadSampleError as error:
                filled.problems[slot] = str(error)
                continue
            filled.sizes[slot] = whole[slot].shape[:2]
            filled.counts[slot, BYTES], filled.counts[slot, PIXELS] = len(images[slot]), filled.sizes[slot].prod()
        return whole

    def whole_crops(self, collected: Collected, view: int, side: int) -> Iterator[tuple[int, np.ndarray]]:
        """Crops of the images that are decoded whole, unless their coarse level serves: places and uint8 (r, r, 3)."""
        boxes = collected.boxes[view]
        for slot, pixels in collected.whole.items():
            if not collected.is_coarse[view, slot]:
                how = bool(boxes.flip[slot]), side, bool(boxes.bicubic[slot])
                yield slot, resized_crop(self._crop, pixels, boxes.yxhw[slot], *how)

    def _decode(self, indices: np.ndarray, collected: Collected, number: int, view: np.ndarray) -> None:
        """Decodes the crops of a view from checkpoints."""
        chosen, stored = collected.chosen(number), collected.stored
        num = len(chosen.slots)
        is_all = num == len(view)
        out = view if is_all else np.empty((num, *view.shape[1:]), np.uint8)
        codes, counts = np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64)
        decode_indexed(
            stored.data, chosen.places, chosen.samples, stored.found.words, *chosen[4:], self.inside, self.min_zoom,
            out, codes, counts,
        )  # fmt: skip
        if not is_all:
            view[chosen.slots] = out
        self.note(indices, collected.filled, chosen, codes, counts)

    def note(self, indices: np.ndarray, filled: Filled, chosen: Chosen, codes: np.ndarray, counts: np.ndarray) -> None:
        """Adds the counts and the problems of chosen crops.

        Args:
            indices: of the batch, positions in the source.
            filled: changed.
            chosen: m crops.
            codes: int64 (m,), error codes.
            counts: int64 (m, 3).
        """
        slots, is_bad = chosen.slots, codes != OK
        filled.counts[slots, BYTES] += counts[:, BYTES]
        filled.counts[slots, PIXELS] += counts[:, PIXELS]
        filled.counts[slots, LEVEL_SHIFT] = counts[:, LEVEL_SHIFT] + chosen.shifts
        for slot, code in zip(slots[is_bad].tolist(), codes[is_bad].tolist(), strict=True):
            filled.problems[slot] = self.problem(int(indices[slot]), code)

    def problem(self, index: int, code: int) -> str:
        """What an error code means for an image, and the remedy."""
        return f"{self._source.name(index)}: {ERRORS[code]}; make its index again: {self.index.remedy}"

    def close(self) -> None:
        """Merges what was added into the index."""
        self.index.close()


@cache
def compile_aside() -> None:
    """Lets another process compile the kernel of the crops, if it is not on disk, while this one compiles the others.

    Call it early: the first batch then waits for half of the compilation. The kernel's lock lets this process wait for
    the other one instead of compiling it, too.
    """
    if len(os.sched_getaffinity(0)) > 1 and waits_for_compilation(decode_indexed):
        start_aside(compile_decoder)


def _places(spans: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Where the kernel finds the parts of images, int64 (n, 4)."""
    places = np.zeros((len(spans), NUM_PLACE_COLUMNS), np.int64)
    header_sizes = samples[:, checkpoints.HEADER_SIZE]
    places[:, HEADERS] = spans[:, 0]
    places[:, BODY], places[:, BODY_SIZE] = spans[:, 0] + header_sizes, spans[:, 1] - header_sizes
    return places

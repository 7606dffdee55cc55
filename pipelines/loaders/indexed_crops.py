"""Crops of images in files that stay as they are: from the checkpoints of an index, or else of the whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.crop_index.crops import BODY, BODY_SIZE, HEADERS, NUM_PLACE_COLUMNS, decode_indexed
from fixres.pipelines.crop_index.index import Checkpoints, CropIndex, join
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.loaders.pillow import resized_crop
from fixres.pipelines.roc.layout import BYTES, ERRORS, LEVEL_SHIFT, NUM_COUNTS, OK, PIXELS
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.spec import MIN_ZOOM, BadSampleError, Crop, Source, TrainCrop

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


class IndexedCrops:
    """Makes crops of the images of a source. Threads may share it.

    Attributes:
        index: the index; images that it does not know are scanned and added.
    """

    def __init__(self, source: Source, crop: Crop, min_zoom: float | None) -> None:
        self._source, self._crop = source, crop
        self._min_zoom = MIN_ZOOM if min_zoom is None else min_zoom  # 0.7 is too coarse here, and saves little
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
        filled = Filled(
            np.ones((len(indices), 2), np.int64), np.zeros((len(indices), NUM_COUNTS), np.int64), problems={}
        )
        images, stamps = self._read(indices, filled.problems)
        slots = np.array(list(images), np.int64)
        data, spans = join(list(images.values()))
        found = self.index.find(indices[slots], stamps[slots], data, spans)
        is_indexed = found.samples[:, checkpoints.KIND] == checkpoints.INDEXED
        whole = self._decode_whole(indices, slots[~is_indexed], images, filled)
        chosen = slots[is_indexed]
        samples = found.samples[is_indexed]
        filled.sizes[chosen] = samples[:, [checkpoints.HEIGHT, checkpoints.WIDTH]]
        places = _places(spans[is_indexed], samples)
        for view, boxes in zip(views, draw(filled.sizes), strict=True):
            self._decode(indices, chosen, data, places, Checkpoints(samples, found.words), boxes, view, filled)
            for slot, pixels in whole.items():
                how = bool(boxes.flip[slot]), view.shape[1], bool(boxes.bicubic[slot])
                view[slot] = resized_crop(self._crop, pixels, boxes.yxhw[slot], *how)
        return filled

    def _read(self, indices: np.ndarray, problems: dict[int, str]) -> tuple[dict[int, bytes], np.ndarray]:
        """The images' bytes by their places in the batch, and what their files looked like before."""
        stamps, images = self.index.stamps(indices), {}
        for slot, one in enumerate(indices.tolist()):
            try:
                images[slot] = self._source.read(one)
            except BadSampleError as error:
                problems[slot] = str(error)
        return images, stamps

    def _decode_whole(
        self, indices: np.ndarray, slots: np.ndarray, images: dict[int, bytes], filled: Filled
    ) -> dict[int, np.ndarray]:
        """The pixels of images without checkpoints."""
        whole = {}
        for slot in slots.tolist():
            index = int(indices[slot])
            try:
                whole[slot] = decode_rgb(images[slot], self._source.name(index), index)
            except BadSampleError as error:
                filled.problems[slot] = str(error)
                continue
            filled.sizes[slot] = whole[slot].shape[:2]
            filled.counts[slot, BYTES], filled.counts[slot, PIXELS] = len(images[slot]), filled.sizes[slot].prod()
        return whole

    def _decode(
        self,
        indices: np.ndarray,
        slots: np.ndarray,
        data: np.ndarray,
        places: np.ndarray,
        found: Checkpoints,
        boxes: Boxes,
        view: np.ndarray,
        filled: Filled,
    ) -> None:
        """Decodes from checkpoints. The arguments are those of the kernel: many parameters."""
        is_all = len(slots) == len(view)
        out = view if is_all else np.empty((len(slots), *view.shape[1:]), np.uint8)
        codes, counts = np.zeros(len(slots), np.int64), np.zeros((len(slots), NUM_COUNTS), np.int64)
        chosen = boxes.yxhw[slots].astype(np.float64), boxes.flip[slots], boxes.bicubic[slots]
        decode_indexed(
            data, places, found.samples, found.words, *chosen,
            isinstance(self._crop, TrainCrop), self._min_zoom, out, codes, counts,
        )  # fmt: skip
        if not is_all:
            view[slots] = out
        filled.counts[slots, BYTES] += counts[:, BYTES]
        filled.counts[slots, PIXELS] += counts[:, PIXELS]
        filled.counts[slots, LEVEL_SHIFT] = counts[:, LEVEL_SHIFT]
        for slot, code in zip(slots[codes != OK].tolist(), codes[codes != OK].tolist(), strict=True):
            name = self._source.name(int(indices[slot]))
            filled.problems[slot] = f"{name}: {ERRORS[code]}; make its index again: {self.index.remedy}"

    def close(self) -> None:
        """Merges what was added into the index."""
        self.index.close()


def _places(spans: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Where the kernel finds the parts of images, int64 (n, 4)."""
    places = np.zeros((len(spans), NUM_PLACE_COLUMNS), np.int64)
    header_sizes = samples[:, checkpoints.HEADER_SIZE]
    places[:, HEADERS] = spans[:, 0]
    places[:, BODY], places[:, BODY_SIZE] = spans[:, 0] + header_sizes, spans[:, 1] - header_sizes
    return places

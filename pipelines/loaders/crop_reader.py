"""Reads crops of chosen images, for data sets with random access: only the crop, of RoC records or by an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fixres.pipelines.formats.beton_layout import MODE_RAW
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.loaders.indexed_crops import Draw, IndexedCrops
from fixres.pipelines.loaders.pillow import resized_crop
from fixres.pipelines.loaders.roc import sample_decoder
from fixres.pipelines.roc.layout import ERRORS, NUM_COUNTS, OK
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import MIN_ZOOM, BadSampleError, Crop, Source, TrainCrop


class CropReader:
    """Decodes crops of images by their positions in the data set.

    Args:
        path: a .beton file, a folder of .beton parts, class folders, or webdataset or parquet shards.
        crop: whether pixels outside the box may be used, as in `fixres.pipelines.loaders.pillow.resized_crop`.
        min_zoom: see `LoaderConfig`.

    Raises:
        InputError: no images of these kinds are at `path`.
    """

    def __init__(self, path: Path, crop: Crop, min_zoom: float = MIN_ZOOM) -> None:
        self._crop = crop
        is_beton = (path.is_file() and path.suffix != ".parquet") or any(path.glob("*.beton"))
        source = open_beton(path) if is_beton else open_stored(path)
        self.classes, self.labels, self.name = tuple(source.classes), np.asarray(source.labels), source.name
        if is_beton and (source.modes == MODE_RAW).any():
            self._source: Source = source
            self._fill = self._fill_with_pillow
        elif is_beton and "roc" in source.field_names:
            self._table = locate_samples(source)
            self._sizes, self._decode = source.sizes, sample_decoder(source, isinstance(crop, TrainCrop), min_zoom)
            self._fill = self._fill_from_records
        else:
            self._crops = IndexedCrops(source, crop, min_zoom)
            self._fill = self._fill_by_index

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, draw: Draw, num_views: int, resolution: int) -> np.ndarray:
        """Crops of some images.

        Args:
            indices: integers (N,), positions in the data set.
            draw: gives the boxes.
            num_views: crops of each image.
            resolution: side of the crops in pixels.

        Returns:
            uint8 (num_views, N, r, r, 3), RGB.

        Raises:
            BadSampleError: an image that cannot be decoded; the message names it.
        """
        images = np.empty((num_views, len(indices), resolution, resolution, 3), np.uint8)
        self._fill(indices, draw, images)
        return images

    def _fill_from_records(self, indices: np.ndarray, draw: Draw, images: np.ndarray) -> None:
        table, sizes = self._table[indices], self._sizes[indices]
        codes, counts = np.zeros(len(indices), np.int64), np.zeros((len(indices), NUM_COUNTS), np.int64)
        for number, view in enumerate(images):
            boxes = draw(number, sizes)
            self._decode(table, boxes.yxhw.astype(np.float64), boxes.flip, boxes.bicubic, view, codes, counts)
            for slot in np.flatnonzero(codes != OK)[:1]:
                index = int(indices[slot])
                raise BadSampleError(f"{self.name(index)}: {ERRORS[int(codes[slot])]}; convert the data again", index)

    def _fill_by_index(self, indices: np.ndarray, draw: Draw, images: np.ndarray) -> None:
        for slot, line in sorted(self._crops.fill(indices, draw, images).problems.items())[:1]:
            raise BadSampleError(line, int(indices[slot]))

    def _fill_with_pillow(self, indices: np.ndarray, draw: Draw, images: np.ndarray) -> None:
        decoded = [decode_rgb(self._source.read(i), self._source.name(i), i) for i in map(int, indices)]
        sizes = np.array([pixels.shape[:2] for pixels in decoded], np.int64).reshape(-1, 2)
        for number, view in enumerate(images):
            boxes = draw(number, sizes)
            for slot, pixels in enumerate(decoded):
                how = boxes.flip[slot], view.shape[1], bool(boxes.bicubic[slot])
                view[slot] = resized_crop(self._crop, pixels, boxes.yxhw[slot], *how)

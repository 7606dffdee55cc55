"""Reads crops of chosen images, for data sets with random access: only the crop, of RoC records or by an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fixres.pipelines.formats.beton_layout import MODE_RAW
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.formats.samples import is_indexable
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.loaders.indexed_crops import Draw, IndexedCrops
from fixres.pipelines.loaders.pillow import resized_crop
from fixres.pipelines.loaders.views import Places, stacked
from fixres.pipelines.roc.decoder.crops import decode_views
from fixres.pipelines.roc.layout import ERRORS, NUM_COUNTS, OK
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import BadSampleError, Crop, Source, TrainCrop, zoom_of


class CropReader:
    """Decodes crops of images by their positions in the data set.

    Args:
        stored: a .beton file, a folder of .beton parts, class folders, or webdataset or parquet shards; or a source,
            of which an index is used if it tells where its images lie.
        crop: whether pixels outside the box may be used, as in `fixres.pipelines.loaders.pillow.resized_crop`.
        min_zoom: see `LoaderConfig`.

    Raises:
        InputError: no images of these kinds are at the path.
    """

    def __init__(self, stored: Path | Source, crop: Crop, min_zoom: float | None = None) -> None:
        self._crop = crop
        is_path = isinstance(stored, Path)
        is_beton = is_path and ((stored.is_file() and stored.suffix != ".parquet") or any(stored.glob("*.beton")))
        source = open_beton(stored) if is_beton else open_stored(stored) if is_path else stored
        self.classes, self.labels, self.name = tuple(source.classes), np.asarray(source.labels), source.name
        if (is_beton and (source.modes == MODE_RAW).any()) or not (is_path or is_indexable(source)):
            self._source: Source = source
            self._fill = self._fill_with_pillow
        elif is_beton and "roc" in source.field_names:
            self._table, self._data, self._sizes = locate_samples(source), source.data, source.sizes
            self._zoom = zoom_of(crop, min_zoom)
            self._fill = self._fill_from_records
        else:
            self._crops = IndexedCrops(source, crop, min_zoom)
            self._fill = self._fill_by_index

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, draw: Draw, places: Places) -> np.ndarray:
        """Crops of some images.

        Args:
            indices: integers (N,), positions in the data set.
            draw: gives the boxes.
            places: sides of the crops, and where they are written.

        Returns:
            uint8 buffer of RGB crops, see `Places`.

        Raises:
            BadSampleError: an image that cannot be decoded; the message names it.
        """
        buffer = np.empty(places.size, np.uint8)
        self._fill(indices, draw, buffer, places)
        return buffer

    def _fill_from_records(self, indices: np.ndarray, draw: Draw, buffer: np.ndarray, places: Places) -> None:
        table, num = self._table[indices], len(indices)
        codes, counts = np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64)
        how = *stacked(draw(self._sizes[indices])), isinstance(self._crop, TrainCrop), self._zoom
        decode_views(self._data, table, *how, buffer, places.starts, places.sides, codes, counts)
        for slot in np.flatnonzero(codes != OK)[:1]:
            index = int(indices[slot])
            raise BadSampleError(f"{self.name(index)}: {ERRORS[int(codes[slot])]}; convert the data again", index)

    def _fill_by_index(self, indices: np.ndarray, draw: Draw, buffer: np.ndarray, places: Places) -> None:
        filled = self._crops.fill(indices, draw, places.views(buffer, len(indices)))
        for slot, line in sorted(filled.problems.items())[:1]:
            raise BadSampleError(line, int(indices[slot]))

    def _fill_with_pillow(self, indices: np.ndarray, draw: Draw, buffer: np.ndarray, places: Places) -> None:
        decoded = [decode_rgb(self._source.read(i), self._source.name(i), i) for i in map(int, indices)]
        sizes = np.array([pixels.shape[:2] for pixels in decoded], np.int64).reshape(-1, 2)
        views = draw(sizes)
        for slot, pixels in enumerate(decoded):
            for crop, boxes in zip(places.crops(buffer, slot), views, strict=True):
                box, flip, bicubic = (values[slot] for values in boxes)
                crop[...] = resized_crop(self._crop, pixels, box, flip, len(crop), bool(bicubic))

"""Reads a folder of .beton parts, as cluster jobs write them, like one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fixres.pipelines.formats.beton_reader import BetonData, BetonReader
from fixres.pipelines.formats.mmap_files import map_files
from fixres.pipelines.formats.parts import check_alike, check_complete
from fixres.pipelines.formats.samples import ImagePlaces
from fixres.pipelines.spec import InputError


def open_beton(path: str | Path) -> BetonData:
    """Opens a .beton file, or a folder with all parts of one and no other .beton files."""
    path = Path(path)
    return BetonParts(path) if path.is_dir() and any(path.glob("*.beton")) else BetonReader(path)


class BetonParts(BetonData):
    """All parts of a data set. Positions refer to `data`, the memory of all files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files = check_complete(list(self.path.glob("*.beton")))
        parts = [BetonReader(file) for file in self._files]
        _check_alike(parts)
        try:
            self._memory, starts = map_files(self._files)
        except OSError as error:  # a process can have 65530 maps
            raise InputError(f"{error.filename} cannot be mapped ({error.strerror}); merge the parts") from None
        first = parts[0]
        self.classes, self.field_names, self.about = first.classes, first.field_names, first.about
        self._stored_class_names = first._stored_class_names
        self._first = np.cumsum([0, *map(len, parts)])
        self.labels = np.concatenate([part.labels for part in parts])
        self.sizes = np.concatenate([part.sizes for part in parts])
        self.modes = np.concatenate([part.modes for part in parts])
        self.image_spans = _moved([part.image_spans for part in parts], starts)
        self._byte_spans = {
            name: _moved([part.field_spans(name) for part in parts], starts) for name in first._byte_spans
        }

    def name(self, index: int) -> str:
        """The part's file and the sample's number in it."""
        part = int(np.searchsorted(self._first, index, side="right")) - 1
        return f"{self._files[part]}: sample {index - self._first[part]}"

    def places(self) -> ImagePlaces:
        """Each image is a sample of a part."""
        part = np.searchsorted(self._first, np.arange(len(self)), side="right") - 1
        return ImagePlaces(list(map(str, self._files)), part, np.arange(len(self)) - self._first[part])


def _check_alike(parts: list[BetonReader]) -> None:
    first = parts[0]
    check_alike([part.path for part in parts], [part.about for part in parts])
    for part in parts:
        if (part.classes, part.field_names) != (first.classes, first.field_names):
            raise InputError(f"{part.path} has other classes or fields than {first.path}; convert all parts alike")


def _moved(spans: list[np.ndarray], starts: list[int]) -> np.ndarray:
    """Spans in each part's file as spans in the memory of all files."""
    return np.concatenate([part + np.array([start, 0]) for part, start in zip(spans, starts, strict=True)])

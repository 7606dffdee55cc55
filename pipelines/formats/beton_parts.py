"""Reads a folder of .beton parts, as cluster jobs write them, like one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.formats.beton_reader import BetonReader
from pipelines.formats.mmap_files import map_files
from pipelines.formats.parts import check_complete
from pipelines.spec import InputError


def open_beton(path: str | Path) -> BetonReader | BetonParts:
    """Opens a .beton file, or a folder with all parts of one and no other .beton files."""
    path = Path(path)
    return BetonParts(path) if path.is_dir() and any(path.glob("*.beton")) else BetonReader(path)


class BetonParts:
    """All parts of a data set, with the interface of a `BetonReader`. Positions refer to `data`, the joint memory.

    Attributes:
        path: the folder.
        parts: a reader of each part, in order.
        classes, labels, sizes, modes, image_spans, field_names, about: as in `BetonReader`, for all samples.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        files = check_complete(list(self.path.glob("*.beton")))
        self.parts = [BetonReader(file) for file in files]
        try:
            self._memory, starts = map_files(files)
        except OSError as error:  # a process can have 65530 maps
            raise InputError(f"{error.filename} cannot be mapped ({error.strerror}); merge the parts") from None
        first = self.parts[0]
        for part in self.parts:
            if (part.classes, part.field_names) != (first.classes, first.field_names):
                raise InputError(f"{part.path} has other classes or fields than {first.path}; convert all parts alike")
            if part.about.get("part", {}).get("source") != first.about.get("part", {}).get("source"):
                raise InputError(f"{part.path} is of another source than {first.path}; convert all parts again")
        self.classes, self.field_names = first.classes, first.field_names
        self.about = first.about
        self._starts = np.array(starts, np.int64)
        self._first = np.cumsum([0, *map(len, self.parts)])
        self.labels = np.concatenate([part.labels for part in self.parts])
        self.sizes = np.concatenate([part.sizes for part in self.parts])
        self.modes = np.concatenate([part.modes for part in self.parts])
        self.image_spans = self._moved([part.image_spans for part in self.parts])

    def _moved(self, spans: list[np.ndarray]) -> np.ndarray:
        moves = zip(spans, self._starts, strict=True)
        return np.concatenate([part + np.array([start, 0], np.int64) for part, start in moves])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Readable names of the classes, in the same order."""
        return self.parts[0].class_names

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def _find(self, index: int) -> tuple[BetonReader, int]:
        part = int(np.searchsorted(self._first, index, side="right")) - 1
        return self.parts[part], int(index - self._first[part])

    def name(self, index: int) -> str:
        """The part's file and the sample's number in it."""
        part, number = self._find(index)
        return part.name(number)

    def read(self, index: int) -> bytes:
        """An image file."""
        part, number = self._find(index)
        return part.read(number)

    def pixels(self, index: int) -> np.ndarray:
        """uint8 (height, width, 3) RGB."""
        part, number = self._find(index)
        return part.pixels(number)

    def image_bytes(self, index: int) -> memoryview:
        """The stored bytes of an image without a copy."""
        part, number = self._find(index)
        return part.image_bytes(number)

    def field_bytes(self, name: str, index: int) -> memoryview:
        """A sample's bytes in a BytesField, without a copy."""
        part, number = self._find(index)
        return part.field_bytes(name, number)

    def field_spans(self, name: str) -> np.ndarray:
        """int64 (N, 2): position in `data` and size of each sample's bytes in a BytesField."""
        return self._moved([part.field_spans(name) for part in self.parts])

    @property
    def data(self) -> np.ndarray:
        """uint8: all files, memory-mapped and read-only."""
        return np.frombuffer(self._memory, np.uint8)

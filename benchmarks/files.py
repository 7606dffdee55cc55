"""The same pictures in each engine's format, for comparisons of speed and size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.convert import convert
from pipelines.images import decode_rgb, encode_jpeg, shrink
from pipelines.spec import InputError
from pipelines.writing import atomic_folder

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
RAW_SIDE = 256  # FFCV's raw files are customarily made this small


class RepeatedSource:
    """All images below a folder, over and over, as a `pipelines.spec.Source` of one class."""

    classes = ("images",)

    def __init__(self, folder: Path, num_samples: int) -> None:
        self.files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not self.files:
            raise InputError(f"{folder} holds no images; give a folder of photographs")
        self.labels = np.zeros(num_samples, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return self.files[index % len(self.files)].read_bytes()

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.files[index % len(self.files)])


class BenchmarkFiles:
    """Makes what an engine reads, once, in a folder that later runs find again.

    Every image is scaled to `max_side` and coded at `quality`, also those that would fit as they are, so that all
    engines decode the same number of pixels of the same quality.
    """

    def __init__(self, data: Path, work_dir: Path, num_samples: int, max_side: int, quality: int) -> None:
        self._source = RepeatedSource(data, num_samples)
        self._dir = work_dir / f"{data.name}_{num_samples}_{max_side}px_q{quality}"
        self._max_side, self._quality = max_side, quality
        self._dir.mkdir(parents=True, exist_ok=True)

    def path(self, kind: str) -> Path:
        """What an engine that reads `kind` gets: "folder", "ffcv", "raw" or "roc"."""
        target = self._dir / {"folder": "folder", "ffcv": "jpeg.beton", "raw": "raw.beton", "roc": "roc.beton"}[kind]
        if not target.exists():
            getattr(self, f"_make_{kind}")(target)
        return target

    def num_bytes(self, kind: str) -> int:
        """Bytes on disk of all samples; a .beton file ends with a partly empty page, which does not count."""
        path = self.path(kind)
        if kind == "folder":
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        from pipelines.beton import BetonReader

        reader = BetonReader(path)
        extra = reader.field_spans("roc")[:, 1].sum() if "roc" in reader.field_names else 0
        return int(reader.image_spans[:, 1].sum() + extra)

    def _make_folder(self, target: Path) -> None:
        source = self._source
        with atomic_folder(target) as folder:
            (folder / "images").mkdir()
            for index in range(len(source)):
                file = folder / "images" / f"{index:06d}.jpg"
                if index < len(source.files):
                    image = Image.fromarray(decode_rgb(source.read(index), source.name(index), index))
                    file.write_bytes(encode_jpeg(shrink(image, self._max_side), self._quality))
                else:
                    os.link(folder / "images" / f"{index % len(source.files):06d}.jpg", file)

    def _make_roc(self, target: Path) -> None:
        convert(self._source, target, "roc", max_side=self._max_side, quality=self._quality)

    def _make_ffcv(self, target: Path) -> None:
        convert(self.path("folder"), target, "ffcv", max_side=self._max_side, quality=self._quality)

    def _make_raw(self, target: Path) -> None:
        """By FFCV's own writer, which alone writes raw pixels."""
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        source, partial = self._source, target.with_suffix(".partial")

        class Shrunk:
            def __len__(self) -> int:
                return len(source)

            def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
                image = Image.fromarray(decode_rgb(source.read(index), source.name(index), index))
                return np.asarray(shrink(image, RAW_SIDE)), 0

        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        DatasetWriter(str(partial), fields, num_workers=2).from_indexed_dataset(Shrunk())
        partial.rename(target)

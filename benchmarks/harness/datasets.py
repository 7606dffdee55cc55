"""The same images in the format of each engine, for comparisons of speed and size."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.formats.webdataset_writer import write_shards
from fixres.pipelines.images.codec import decode_rgb, encode_jpeg, image_size, shrink
from fixres.pipelines.runtime.atomic_files import atomic_folder
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import InputError, Source

_NAMES = {
    "folder": "folder",
    "coarse": "coarse",
    "published": "published",
    "published_coarse": "published_coarse",
    "published_tar": "published.tar",
    "ffcv": "jpeg.beton",
    "raw": "raw.beton",
    "roc": "roc.beton",
    "shards": "shards",
} | {"tar": "images.tar"}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
RAW_SIDE = 256  # the usual size of FFCV's raw files


class RepeatedSource:
    """The images of a folder or of converted data, repeated, as a `Source` of ten artificial classes.

    Attributes:
        images: the files of a folder; empty if the data is a .beton file or tar shards.
        num_different: number of images without repetition.
    """

    classes = tuple(f"class_{number}" for number in range(10))

    def __init__(self, data: Path, num_samples: int) -> None:
        self.images, self._stored = _images_below(data), None
        if not self.images:
            self._stored = open_stored(data)
        self.num_different = min(num_samples, len(self._stored or self.images))
        self.labels = np.arange(num_samples, dtype=np.int64) % len(self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        place = index % self.num_different
        return self.images[place].read_bytes() if self._stored is None else bytes(self._stored.read(place))

    def name(self, index: int) -> str:
        """The file's path, or the stored sample's name."""
        place = index % self.num_different
        return str(self.images[place]) if self._stored is None else self._stored.name(place)


def _images_below(data: Path) -> list[Path]:
    if not data.exists():
        raise InputError(
            f"{data} does not exist; use a folder of photographs, a .beton file or a folder of .tar shards"
        )
    if data.is_file() or any(data.glob("*.beton")) or any(data.glob("*.tar")):
        return []
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise InputError(f"{data} contains no images; use a folder of photographs")
    return files


class BenchmarkFiles:
    """Converts data to the format of each engine, once, in a folder that later runs reuse.

    Every image is scaled to `max_side` and encoded at `quality`, also images that are small enough, so that all engines
    decode the same number of pixels of the same quality.
    """

    def __init__(self, data: Path, work_dir: Path, num_samples: int, max_side: int, quality: int) -> None:
        self._source = RepeatedSource(data, num_samples)
        self.num_different = self._source.num_different
        place = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:8]  # many folders are called train
        self._dir = work_dir / f"{data.name}-{place}_{num_samples}_{max_side}px_q{quality}"
        self._max_side, self._quality = max_side, quality
        self._dir.mkdir(parents=True, exist_ok=True)

    def path(self, kind: str) -> Path:
        """The data as "folder", "published", "ffcv", "raw", "roc", "shards", "tar", "published_tar" and so on."""
        target = self._dir / _NAMES[kind]
        if not target.exists():
            getattr(self, f"_make_{kind}")(target)
        return target

    def num_bytes(self, kind: str, with_index: bool = False) -> int:
        """Bytes of all samples; the partly empty page at the end of a .beton file does not count."""
        path = self.path(kind)
        names = "*" if with_index else "[!.]*"
        if not path.suffix == ".beton":
            return sum(file.stat().st_size for file in (path, *path.rglob(names)) if file.is_file())
        from fixres.pipelines.formats.beton_reader import BetonReader

        reader = BetonReader(path)
        extra = reader.field_spans("roc")[:, 1].sum() if "roc" in reader.field_names else 0
        return int(reader.image_spans[:, 1].sum() + extra)

    def _make_folder(self, target: Path) -> None:
        self._write_folder(target, self._encoded)

    def _make_published(self, target: Path) -> None:
        self._write_folder(target, self._source.read)

    def _write_folder(self, target: Path, encoded: Callable[[int], bytes]) -> None:
        """Class folders of files; repetitions are links."""
        source = self._source
        with atomic_folder(target) as folder:
            for name in source.classes:
                (folder / name).mkdir()
            files = [folder / source.classes[k] / f"{i:06d}.jpg" for i, k in enumerate(source.labels)]
            for index, file in enumerate(tqdm(files, desc="storing images", unit=" images", disable=None)):
                if index < source.num_different:
                    file.write_bytes(encoded(index))
                else:
                    os.link(files[index % source.num_different], file)

    def _encoded(self, index: int) -> bytes:
        """An image at most `max_side` large, at `quality`."""
        image = Image.fromarray(decode_rgb(self._source.read(index), self._source.name(index), index))
        return encode_jpeg(shrink(image, self._max_side), self._quality)

    def _make_coarse(self, target: Path, kind: str = "folder") -> None:
        """The same files for another index; links to them."""
        shutil.copytree(self.path(kind), target, copy_function=os.link, ignore=shutil.ignore_patterns(".*"))

    def _make_published_coarse(self, target: Path) -> None:
        self._make_coarse(target, "published")

    def _make_shards(self, target: Path) -> None:
        """With our own writer, in random order, in enough shards for all workers."""
        stored = open_stored(self.path("folder"))
        order = np.random.default_rng(0).permutation(len(stored))
        write_shards(target, (_sample(stored, int(index)) for index in order), stored.classes, max(8, len(order) // 32))

    def _make_tar(self, target: Path, kind: str = "folder") -> None:
        """One file, with class folders."""
        folder, partial = self.path(kind), target.with_suffix(".partial")
        with tarfile.open(partial, "w", dereference=True) as file:
            for image in sorted(folder.rglob("*.jpg"), key=lambda path: path.name):
                file.add(image, image.relative_to(folder))
        partial.rename(target)

    def _make_published_tar(self, target: Path) -> None:
        self._make_tar(target, "published")

    def _make_roc(self, target: Path) -> None:
        convert(self._source, target, ConversionConfig("roc", max_side=self._max_side, quality=self._quality))

    def _make_ffcv(self, target: Path) -> None:
        convert(self.path("folder"), target, ConversionConfig("ffcv", max_side=self._max_side, quality=self._quality))

    def _make_raw(self, target: Path) -> None:
        """With FFCV's own writer, because ours does not write raw pixels."""
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        source, partial = self._source, target.with_suffix(".partial")

        class Shrunk:
            def __len__(self) -> int:
                return len(source)

            def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
                image = Image.fromarray(decode_rgb(source.read(index), source.name(index), index))
                return np.asarray(shrink(image, RAW_SIDE)), int(source.labels[index])

        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        DatasetWriter(str(partial), fields, num_workers=2).from_indexed_dataset(Shrunk())
        partial.rename(target)


def _sample(source: Source, index: int) -> EncodedSample:
    data = source.read(index)
    return EncodedSample(data, *image_size(data, source.name(index), index), int(source.labels[index]), index)

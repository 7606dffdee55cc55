"""The official archives of ILSVRC2012, read as they were downloaded.

`ILSVRC2012_img_train.tar` is a tar of class tars, and each class tar is contiguous. So the headers give every image's
offset in the outer file. `ILSVRC2012_img_val.tar` is flat; its labels are in the devkit archive in the same folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.pipelines.formats.hidden_names import has_hidden
from fixres.pipelines.formats.tar_index import Member, Span, is_plain, read_member, walk
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources.imagenet.devkit import devkit_labels
from fixres.pipelines.sources.imagenet.val_labels import IMAGE_ENDINGS, read_labels
from fixres.pipelines.spec import InputError

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}


class _Image(NamedTuple):
    """An image in the archive. Sorting gives ImageFolder's order: by class, then by name."""

    synset: str
    name: str
    offset: int  # position of its bytes in the file
    size: int  # in bytes


class IlsvrcSource:
    """One archive of ILSVRC2012 as a `fixres.pipelines.spec.Source`, in ImageFolder's order.

    Indexing reads the header of every image, 26 us each if the disk is fast enough: about half a minute for the
    training archive. The file is opened for each read, so a source can be pickled and used after a fork.

    Attributes:
        path: the archive.
        split: "train" or "val".
        classes: the synsets that occur, sorted.
        labels: int64 (N,).
    """

    def __init__(self, path: str | Path, split: str | None = None, val_labels: str | Path | None = None) -> None:
        """Indexes the archive.

        Args:
            path: an archive, or a folder that holds it.
            split: "train" or "val"; not needed if there is only one archive.
            val_labels: a file with the labels of the val images (see `val_labels.read_labels`) instead of the devkit.
        """
        self.path, self.split = _choose(Path(path), split)
        if self.split == "train" and val_labels is not None:
            raise InputError(f"{self.path} is the training archive, whose labels are in it; omit --val-labels")
        with open(self.path, "rb", buffering=0) as file:
            if self.split == "train":
                images = sorted(_train_images(self.path, file.fileno()))
            else:
                images = sorted(_val_images(self.path, file.fileno(), val_labels))
        if not images:
            raise InputError(f"{self.path} holds no images; download it again")
        self.classes = tuple(sorted({image.synset for image in images}))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels = np.array([numbers[image.synset] for image in images], np.int64)
        self._names = [image.name for image in images]
        self._spans = np.array([(image.offset, image.size) for image in images], np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        """The image's bytes."""
        return read_member(self.path, *self._spans[index].tolist(), self.name(index), int(index))

    def name(self, index: int) -> str:
        """The archive's path, the class and the image's name."""
        return f"{self.path}: {self.classes[self.labels[index]]}/{self._names[index]}"


def archive_split(path: Path) -> str | None:
    """ "train" or "val" if the tar file `path` begins like that archive, None for another tar file."""
    with open(path, "rb", buffering=0) as file:
        first = next(islice(walk(Span(file.fileno()), str(path)), 1), None)
    if first is None:
        return None
    if first.name.endswith(".tar"):
        return "train"
    return "val" if first.name.rpartition("/")[2].startswith("ILSVRC2012_val_") else None


def _choose(path: Path, split: str | None) -> tuple[Path, str]:
    """The archive's path and its split."""
    if path.is_file():
        there = archive_split(path)
        if there is None:
            raise InputError(f"{path} is neither a tar of class tars nor one of ILSVRC2012_val_*.JPEG; check the file")
        found = {there: path}
    else:
        found = {name: path / file for name, file in ARCHIVES.items() if (path / file).is_file()}
    if not found:
        raise InputError(f"{path} holds neither {' nor '.join(ARCHIVES.values())}; give the folder or archive itself")
    if split is None and len(found) > 1:
        raise InputError(f"{path} holds the archives of train and val; choose one with --split of fixres convert")
    split = split or next(iter(found))
    if split not in found:
        raise InputError(f"{path} has no split {split!r}, only {', '.join(found)}; choose that or omit --split")
    return found[split], split


def _train_images(archive: Path, descriptor: int) -> Iterator[_Image]:
    seen: set[str] = set()
    members = walk(Span(descriptor), str(archive))
    for member in progress_bar(None, f"reading {archive.name}", unit="classes", iterable=members):
        if has_hidden(member.name):
            continue
        synset = member.name.removesuffix(".tar")
        if synset == member.name or not is_plain(synset):
            raise InputError(f"{archive}: member {member.name!r} is not a class tar such as n01440764.tar")
        if synset in seen:
            raise InputError(f"{archive}: member {member.name!r} exists twice; download the archive again")
        seen.add(synset)
        place = f"{archive}: {member.name}"
        inside = walk(Span(descriptor, member.offset, member.size), place, member.offset)
        yield from (_Image(synset, name, image.offset, image.size) for name, image in _named(inside, place))


def _val_images(archive: Path, descriptor: int, val_labels: str | Path | None) -> list[_Image]:
    images = dict(_named(walk(Span(descriptor), str(archive)), str(archive)))
    stems = [name.rpartition(".")[0] for name in images]
    if val_labels is None:
        labels = devkit_labels(archive, stems)
    else:
        labels = read_labels(Path(val_labels), stems, archive)
    return [_Image(label, name, at.offset, at.size) for label, (name, at) in zip(labels, images.items(), strict=True)]


def _named(members: Iterator[Member], place: str) -> Iterator[tuple[str, Member]]:
    """Yields members with their file names. Raises InputError unless all are images with distinct names."""
    seen: set[str] = set()
    for image in members:
        if has_hidden(image.name):
            continue
        name = image.name.rpartition("/")[2]
        if not name.lower().endswith(IMAGE_ENDINGS):
            raise InputError(f"{place}: member {image.name!r} is not an image; use the archive as it was downloaded")
        if name in seen:
            raise InputError(f"{place}: member {image.name!r} exists twice; download the archive again")
        seen.add(name)
        yield name, image
    if not seen:
        raise InputError(f"{place}: holds no images; download the archive again")

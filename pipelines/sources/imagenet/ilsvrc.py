"""The official archives of ILSVRC2012, read as they were downloaded.

`ILSVRC2012_img_train.tar` is a tar of class tars. Each lies in one piece, so an image's place in the outer file is
known from the headers. `ILSVRC2012_img_val.tar` is flat; its labels come from the devkit beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from pipelines.formats.tar_index import Member, Span, is_litter, is_plain, walk
from pipelines.sources.imagenet.devkit import devkit_labels
from pipelines.sources.imagenet.val_labels import labels_for, read_labels
from pipelines.sources.members import Image, MemberSource
from pipelines.spec import InputError

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
_ENDINGS = (".jpeg", ".jpg", ".png")


class IlsvrcSource(MemberSource):
    """One archive of ILSVRC2012 as a `pipelines.spec.Source`.

    Indexing reads the header of every image, 26 us each if the disk does not hold it up: about half a minute for the
    training archive.

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
            split: "train" or "val"; may be left out if there is one archive only.
            val_labels: a file with the labels of the val images (see `val_labels.read_labels`) instead of the devkit.
        """
        archive, self.split = _choose(Path(path), split)
        if self.split == "train" and val_labels is not None:
            raise InputError(f"{archive} is the training archive, whose labels are in it; omit --val-labels")
        with open(archive, "rb", buffering=0) as file:
            if self.split == "train":
                images = list(_train_images(archive, file.fileno()))
            else:
                images = _val_images(archive, file.fileno(), None if val_labels is None else Path(val_labels))
        super().__init__(archive, images)


def archive_split(path: Path) -> str | None:
    """ "train" or "val" if the tar file `path` begins as that archive does, None for another tar file."""
    with open(path, "rb", buffering=0) as file:
        first = next(islice(walk(Span(file.fileno()), str(path)), 1), None)
    if first is None:
        return None
    if first.name.endswith(".tar"):
        return "train"
    return "val" if first.name.rpartition("/")[2].startswith("ILSVRC2012_val_") else None


def _choose(path: Path, split: str | None) -> tuple[Path, str]:
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
        raise InputError(f"{path} holds the archives of train and val; choose one with --split")
    split = split or next(iter(found))
    if split not in found:
        raise InputError(f"{path} has no split {split!r}, only {', '.join(found)}; choose that or omit --split")
    return found[split], split


def _train_images(archive: Path, descriptor: int) -> Iterator[Image]:
    seen: set[str] = set()
    members = walk(Span(descriptor), str(archive))
    for member in tqdm(members, desc=f"index {archive.name}", unit=" classes", disable=None, leave=False):
        if is_litter(member.name):
            continue
        synset = member.name.removesuffix(".tar")
        if synset == member.name or not is_plain(synset):
            raise InputError(f"{archive}: member {member.name!r} is no class tar such as n01440764.tar")
        if synset in seen:
            raise InputError(f"{archive}: member {member.name!r} is there twice; download the archive again")
        seen.add(synset)
        place = f"{archive}: {member.name}"
        inside = walk(Span(descriptor, member.offset, member.size), place, member.offset)
        yield from (Image(synset, name, image.offset, image.size) for name, image in _named(inside, place))


def _val_images(archive: Path, descriptor: int, val_labels: Path | None) -> list[Image]:
    images = dict(_named(walk(Span(descriptor), str(archive)), str(archive)))
    stems = [name.rpartition(".")[0] for name in images]
    labels = (
        devkit_labels(archive, stems) if val_labels is None else labels_for(stems, read_labels(val_labels), archive)
    )
    return [Image(label, name, at.offset, at.size) for label, (name, at) in zip(labels, images.items(), strict=True)]


def _named(members: Iterator[Member], place: str) -> Iterator[tuple[str, Member]]:
    """Members with their names without folders; at least one, all of them images, none twice."""
    seen: set[str] = set()
    for image in members:
        if is_litter(image.name):
            continue
        name = image.name.rpartition("/")[2]
        if not name.lower().endswith(_ENDINGS):
            raise InputError(f"{place}: member {image.name!r} is no image; take the archive as it was downloaded")
        if name in seen:
            raise InputError(f"{place}: member {image.name!r} is there twice; download the archive again")
        seen.add(name)
        yield name, image
    if not seen:
        raise InputError(f"{place}: holds no images; download the archive again")

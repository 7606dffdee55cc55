"""Where the splits and the classes are in a folder: the only code that decides it, for converter, commands and engines.

A split is a folder of class folders whose name is that of a split in any case: Train, Training, Testing, valid and so
on. It may lie deeper, below folders that hold only one folder, as archives unpack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fixres.pipelines.runtime.notices import counted, notice
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources.splits import SPLIT_WORDS, SPLITS, split_of
from fixres.pipelines.sources.tree import IMAGE_ENDINGS, DiskFolder, Tree, images_in, is_image
from fixres.pipelines.spec import InputError

T = TypeVar("T", bound=Tree)
_MAX_DEPTH = 5
# Pictures that neither torchvision nor timm list: no decoder in Pillow, several frames, or raw data of cameras.
_OTHER_PICTURES = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".svg", ".psd", ".tga", ".jfif", ".jpe",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
)  # fmt: skip


def find_splits(tree: T) -> dict[str, T]:
    """The splits in a folder by "train", "val" and "test"; empty if it has none.

    Raises:
        InputError: two folders are the same split, or folders look like splits but have other names.
    """
    for _ in range(_MAX_DEPTH):
        if found := _splits_here(tree):
            return found
        if len(tree.folders()) != 1:
            break
        tree = tree.inside(tree.folders()[0])
    return {}


def _splits_here(tree: T) -> dict[str, T]:
    found: dict[str, T] = {}
    alike: dict[str, str] = {}
    for name in tree.folders():
        split = SPLIT_WORDS.get(name.lower())
        almost = split_of(name) if split is None else None
        # A folder called train that holds only images is a class.
        if (split is None and almost is None) or not tree.inside(name).folders():
            continue
        if split is None:
            alike[str(almost)] = name
            continue
        if split in found:
            raise InputError(
                f"{tree.place} holds two folders of the split {split}, {Path(found[split].place).name} and {name}; move"
                " one of them elsewhere"
            )
        found[split] = tree.inside(name)
    if not found and len(alike) > 1:
        one, other = sorted(alike.values())[:2]
        raise InputError(
            f"{tree.place} holds {one} and {other}, which look like splits, not classes; rename them train and val, or"
            f" give one of them, such as {tree.inside(one).place}"
        )
    return {split: found[split] for split in SPLITS if split in found}


def splits_with_val(tree: T) -> dict[str, T]:
    """As `find_splits`; test images serve as "val" if there are no validation images."""
    splits = find_splits(tree)
    return {"val": splits["test"]} | splits if "test" in splits else splits


def val_folder_beside(train: Path) -> Path | None:
    """The class folders of validation images, else of test images, beside a folder that is called train or alike."""
    if SPLIT_WORDS.get(train.name.lower()) != "train":
        return None
    beside = DiskFolder(train.absolute().parent)
    for wanted in ("val", "test"):
        names = [name for name in beside.folders() if SPLIT_WORDS.get(name.lower()) == wanted]
        found = [folder.path for folder in map(beside.inside, names) if folder.folders()]
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1]} are both {wanted} images of {train}; name one of them as val")
        if found:
            return found[0]
    return None


def disk_splits(path: Path) -> dict[str, Path]:
    """Folders of the splits in `path`: of class folders, else of shards, or of images without class folders.

    Test images in class folders serve as "val" if there are no validation images.
    """
    if not path.is_dir():
        return {}
    splits = {split: folder.path for split, folder in splits_with_val(DiskFolder(path)).items()}
    for name in DiskFolder(path).folders():
        if name.lower() in SPLIT_WORDS:
            splits.setdefault(SPLIT_WORDS[name.lower()], path / name)
    return splits


def class_folders(tree: T) -> T:
    """The folder that holds the class folders: `tree`, or the one below folders that hold a single folder.

    Raises:
        InputError: it holds splits, or no folders.
    """
    tree.check()
    if splits := find_splits(tree):
        names = ", ".join(splits)
        raise InputError(f"{tree.place} holds the splits {names}; give one of them, such as {_first(splits)}")
    if not tree.folders():
        raise InputError(f"{tree.place} has no class folders; it needs a subfolder of images for each class")
    for _ in range(_MAX_DEPTH):
        if len(tree.folders()) > 1 or images_in(tree):
            break
        inner = tree.inside(tree.folders()[0])
        if images_in(inner) or not inner.folders():
            break
        tree = inner
        tree.check()
    return tree


def _first(splits: dict[str, Any]) -> str:
    return next(iter(splits.values())).place


class Images(NamedTuple):
    """Images in class folders."""

    classes: tuple[str, ...]
    samples: list[tuple[Any, int]]  # what `Tree.file` gives, and the label


def find_images(tree: Tree, classes: Sequence[str]) -> Images:
    """The images below the class folders, in the order of torchvision's ImageFolder. Says which files are left out.

    Args:
        tree: the folder with a subfolder for each class.
        classes: the subfolders' names in label order; each must hold an image.

    Raises:
        InputError: a class folder has no images, or its folders are splits; or see `DiskFolder`.
        OSError: a folder cannot be read. torchvision skips the images of such a folder.
    """
    tree.check()
    samples, empty, left_out = [], [], _LeftOut()
    for number, name in enumerate(
        progress_bar(len(classes), f"reading {tree.place}", unit="folders", iterable=classes)
    ):
        folder, before = tree.inside(name), len(samples)
        _check_nested(folder)
        for inner in sorted(_walk(folder), key=lambda one: one.place):
            inner.check()
            images = images_in(inner)
            samples += [(inner.file(image), number) for image in images]
            if len(images) < len(inner.files()):
                left_out.add(inner)
        if len(samples) == before:
            empty.append(name)
    if empty:
        raise InputError(
            f"{tree.inside(empty[0]).place} holds no images ({len(empty)} of {len(classes)} class folders are empty"
            f"{left_out.inside(tree.inside(empty[0]))}); add {', '.join(ending[1:] for ending in IMAGE_ENDINGS)} files"
            " or remove the folder"
        )
    _log_beside(tree)
    left_out.log(tree)
    return Images(tuple(classes), samples)


def _walk(tree: T) -> Iterator[T]:
    yield tree
    for name in tree.folders():
        yield from _walk(tree.inside(name))


def _check_nested(folder: Tree) -> None:
    """Class folders with train/ and test/ in them: their images would all be one split."""
    splits = {split: name for name in folder.folders() if (split := SPLIT_WORDS.get(name.lower()))}
    if len(splits) > 1:
        names = " and ".join(sorted(splits.values()))
        raise InputError(
            f"{folder.place} holds {names}: splits inside of a class or beside classes; give a folder with train/ and"
            f" val/ that hold class folders, or {folder.place} if that is one"
        )


class _LeftOut:
    """Counts the files that are not read, by ending."""

    def __init__(self) -> None:
        self._endings: Counter[str] = Counter()
        self._example = ""

    def add(self, folder: Tree) -> None:
        for name in folder.files():
            if not is_image(name):
                self._endings[Path(name).suffix.lower() or "no ending"] += 1
                self._example = self._example or f"{folder.place}/{name}"

    def inside(self, folder: Tree) -> str:
        """What an empty class folder holds instead."""
        if not folder.files():
            return ""
        name = folder.files()[0]
        reason = ", a format that is not read: convert it to JPEG" if name.lower().endswith(_OTHER_PICTURES) else ""
        return f"; this one holds {name}{reason}"

    def log(self, tree: Tree) -> None:
        """Says what was added, of the files in and below `tree`."""
        if not self._endings:
            return
        endings = ", ".join(f"{num} {ending}" for ending, num in self._endings.most_common(8))
        pictures, advice = sum(self._endings[ending] for ending in _OTHER_PICTURES), ""
        if pictures:
            advice = f"; {counted(pictures, 'picture')} of them in formats that are not read: convert them to JPEG"
        total = counted(self._endings.total(), "file")
        notice(f"{tree.place}: {total} left out by ending ({endings}), such as {self._example}{advice}")


def _log_beside(tree: Tree) -> None:
    """Says which images and class tars are left out because they are beside the class folders."""
    if beside := images_in(tree):
        notice(
            f"{tree.place}: {counted(len(beside), 'image')} beside the class folders left out, such as {beside[0]};"
            " images need a class folder"
        )
    if tars := [name for name in tree.files() if name.endswith(".tar")]:
        notice(f"{tree.place}: {counted(len(tars), '.tar file')} beside the class folders left out, such as {tars[0]}")


def flat_images(tree: Tree) -> list[Any]:
    """What reads the images in the folder itself. Says which files are left out."""
    tree.check()
    left_out = _LeftOut()
    left_out.add(tree)
    left_out.log(tree)
    return [tree.file(name) for name in images_in(tree)]

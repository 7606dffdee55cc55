"""Folders of images as a tree, on disk or in a tar archive. Both are read by the same code and the same rules.

Hidden files and those that operating systems leave behind are not in the tree.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from fixres.pipelines.formats.hidden_names import has_hidden, is_hidden
from fixres.pipelines.formats.tar_index import Member, is_plain
from fixres.pipelines.spec import InputError

# torchvision's IMG_EXTENSIONS. Importing torchvision, for these or for its ImageFolder, takes 6 s.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Tree(Protocol):
    """A folder."""

    place: str
    """Its path, for messages and for the order of nested folders."""

    def folders(self) -> Sequence[str]:
        """Names of the folders in it, sorted as text."""

    def files(self) -> Sequence[str]:
        """Names of the files in it, sorted as text."""

    def inside(self, name: str) -> Self:
        """The folder `name` in it."""

    def file(self, name: str) -> Any:
        """What reads the file `name`: its path, or its place in the archive."""

    def check(self) -> None:
        """Raises InputError if the folder holds something that cannot be used."""


def is_image(name: str) -> bool:
    """Whether a file's name has the ending of an image, in any case."""
    return name.lower().endswith(IMAGE_ENDINGS)


def images_in(tree: Tree) -> list[str]:
    """Names of the images in the folder itself."""
    return [name for name in tree.files() if is_image(name)]


class DiskFolder:
    """A folder on disk. Links count as what they lead to.

    Broken links, pipes, sockets and devices are not in the tree, but `check` refuses some of them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.place = str(path)

    def folders(self) -> Sequence[str]:
        return self._entries.folders

    def files(self) -> Sequence[str]:
        return self._entries.files

    def inside(self, name: str) -> DiskFolder:
        inner = os.path.join(self.place, name)
        above = (self.place, *self.path.parents)
        if os.path.islink(inner) and os.path.realpath(inner) in map(os.path.realpath, above):
            raise InputError(f"{inner} links to a folder that contains it; remove the link")
        return DiskFolder(inner)

    def file(self, name: str) -> str:
        return os.path.join(self.place, name)

    def check(self) -> None:
        """Raises InputError for a broken link or a device.

        A link without an image's name may have been a class, and without it the labels of later classes change. A pipe
        or a device with an image's name might wait for ever when it is read.
        """
        if self._entries.problems:
            raise InputError(self._entries.problems[0])

    @cached_property
    def _entries(self) -> _Entries:
        found = _Entries([], [], [])
        with os.scandir(self.place) as entries:
            for entry in entries:
                if not is_hidden(entry.name):
                    _sort_in(entry, found)
        for names in found:
            names.sort()
        return found


class _Entries(NamedTuple):
    folders: list[str]
    files: list[str]
    problems: list[str]  # messages


def _sort_in(entry: os.DirEntry[str], found: _Entries) -> None:
    if entry.is_file(follow_symlinks=False):  # known without a call of the system, as the next
        found.files.append(entry.name)
        return
    if entry.is_dir(follow_symlinks=False):
        found.folders.append(entry.name)
        return
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if is_image(entry.name):
            found.files.append(entry.name)  # a sample that cannot be read: `on_bad` decides
            return
        target = os.readlink(entry.path)
        remedy = "which does not exist; restore the target or remove the link"
        found.problems.append(f"{entry.path} is a link to {target}, {remedy}")
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        (found.folders if stat.S_ISDIR(mode) else found.files).append(entry.name)
    elif is_image(entry.name):
        found.problems.append(f"{entry.path} is a pipe, a socket or a device, not an image file; remove it")


class TarFolder:
    """A folder in a tar archive."""

    def __init__(self, place: str, content: dict[str, Any]) -> None:
        self.place, self._content = place, content

    @classmethod
    def of(cls, place: str, members: Iterable[Member]) -> TarFolder:
        """The root of an archive.

        Raises:
            InputError: two members have one name, a name is also a folder, or is a path that leads elsewhere.
        """
        root: dict[str, Any] = {}
        for member in members:
            *folders, base = member.name.split("/")
            if has_hidden(member.name):
                continue
            if not all(map(is_plain, (*folders, base))):
                raise InputError(f"{place}: member {member.name!r} has no plain name; pack the folder again with tar")
            node = root
            for folder in folders:
                node = node.setdefault(folder, {})
                if not isinstance(node, dict):
                    break
            if not isinstance(node, dict) or base in node:
                raise InputError(f"{place}: member {member.name!r} exists twice; pack the archive again")
            node[base] = member
        return cls(place, root)

    def folders(self) -> Sequence[str]:
        return sorted(name for name, value in self._content.items() if isinstance(value, dict))

    def files(self) -> Sequence[str]:
        return sorted(name for name, value in self._content.items() if not isinstance(value, dict))

    def inside(self, name: str) -> TarFolder:
        return TarFolder(f"{self.place}/{name}", self._content[name])

    def file(self, name: str) -> Member:
        return self._content[name]

    def check(self) -> None:
        """Nothing: links and devices in archives are refused when the headers are read."""

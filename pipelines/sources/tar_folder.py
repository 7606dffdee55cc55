"""Images in one tar archive of class folders, as `tar -cf train.tar train/` makes it, read without unpacking."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from fixres.pipelines.formats.hidden_names import has_hidden
from fixres.pipelines.formats.tar_index import Member, Span, read_member, walk
from fixres.pipelines.sources.layout import class_folders, find_images, splits_with_val
from fixres.pipelines.sources.tree import TarFolder, is_image
from fixres.pipelines.spec import InputError

_LABEL_ENDINGS = (".cls", ".json", ".txt")
_NUM_LOOKED_AT = 64


class TarFolderSource:
    """A tar archive of class folders as a `fixres.pipelines.spec.Source`, in ImageFolder's order.

    Attributes:
        path: the archive.
        classes: names of the class folders, sorted.
        labels: int64 (N,).
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        """Reads all headers.

        Args:
            path: the archive.
            split: "train", "val" or "test", if the archive holds several.
        """
        self.path = path
        with open(path, "rb", buffering=0) as file:
            root = TarFolder.of(str(path), walk(Span(file.fileno()), str(path)))
        splits = splits_with_val(root)
        if split is None and splits:
            raise InputError(f"{path} holds the splits {', '.join(splits)}; choose one with --split of fixres convert")
        if split is not None:
            if split not in splits:
                there = ", ".join(splits) or "one split"
                raise InputError(
                    f"{path} has no {split}/ with class folders, only {there}; choose another or omit --split"
                )
            root = splits[split]
        root = class_folders(root)
        self.classes, samples = find_images(root, root.folders())
        self.labels = np.array([label for _, label in samples], np.int64)
        self._members: list[Member] = [member for member, _ in samples]

    def __len__(self) -> int:
        return len(self._members)

    def read(self, index: int) -> bytes:
        """The image's bytes."""
        member = self._members[index]
        return read_member(self.path, member.offset, member.size, self.name(index), int(index))

    def name(self, index: int) -> str:
        """The archive's path and the image's path in it."""
        return f"{self.path}: {self._members[index].name}"


def holds_class_folders(path: Path) -> bool:
    """Whether the first members of a tar file are images in folders, and none is the label of a webdataset sample."""
    with open(path, "rb", buffering=0) as file:
        members = islice(walk(Span(file.fileno()), str(path)), _NUM_LOOKED_AT)
        names = [member.name for member in members if not has_hidden(member.name)]
    images = [name for name in names if is_image(name)]
    stems = {name.rpartition(".")[0] for name in images}
    has_labels = any(name.endswith(_LABEL_ENDINGS) and name.rpartition(".")[0] in stems for name in names)
    return any("/" in name for name in images) and not has_labels

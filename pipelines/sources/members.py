"""Images that lie in one archive at known places, as a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.imagenet_classes import human_names
from pipelines.spec import BadSampleError, InputError


class Image(NamedTuple):
    """An image in the archive.

    Attributes:
        class_name: synset, or what stands for it.
        name: what it is called within its class.
        offset: position of its bytes in the file.
        size: in bytes.
    """

    class_name: str
    name: str
    offset: int
    size: int


class MemberSource:
    """Labelled byte ranges of one file as a `pipelines.spec.Source`, in ImageFolder's order: by class, then name.

    The file is opened for each read, so a source can be pickled and used after a fork.

    Attributes:
        path: the archive.
        classes: names of the classes that occur, sorted.
        labels: int64 (N,).
    """

    def __init__(self, path: Path, images: Sequence[Image]) -> None:
        if not images:
            raise InputError(f"{path} holds no images; download it again")
        self.path = path
        images = sorted(images)
        _check_distinct(path, images)
        self.classes = tuple(sorted({image.class_name for image in images}))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels = np.array([numbers[image.class_name] for image in images], np.int64)
        self._names = [image.name for image in images]
        self._spans = np.array([(image.offset, image.size) for image in images], np.int64)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """What a person calls the classes; looked up on first use, because that imports timm."""
        return human_names(self.classes)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        """The image's bytes."""
        offset, size = self._spans[index].tolist()
        try:
            with open(self.path, "rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise BadSampleError(f"{self.name(index)}: cannot be read ({error.strerror})", int(index)) from None
        if len(data) < size:
            raise BadSampleError(f"{self.name(index)}: the archive has become shorter", int(index))
        return data

    def name(self, index: int) -> str:
        """The archive's path, the class and the image's name."""
        return f"{self.path}: {self.classes[self.labels[index]]}/{self._names[index]}"


def _check_distinct(path: Path, images: Sequence[Image]) -> None:
    for one, other in pairwise(images):
        if one[:2] == other[:2]:
            raise InputError(f"{path}: {one.class_name}/{one.name} is there twice; download the archive again")

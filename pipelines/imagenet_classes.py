"""ImageNet's class list: its synsets in order, and their human-readable names. The lists are timm's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fixres.pipelines.spec import Source

if TYPE_CHECKING:
    from timm.data import ImageNetInfo

NUM_IMAGENET = 1000


class Classes(NamedTuple):
    """A class list in label order."""

    classes: tuple[str, ...]  # names that identify a class; synsets if they are known
    class_names: tuple[str, ...]  # human-readable names
    labels: np.ndarray  # int64 (N,), the samples' classes in this list
    unnamed: bool = False  # whether nothing but numbers is known


def is_synset(name: str) -> bool:
    """Whether `name` looks like the number of a WordNet noun, such as n01440764."""
    return re.fullmatch("n[0-9]{8}", name) is not None


def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 synsets of ImageNet-1k, sorted. Number k is label k of torchvision, timm and Hugging Face."""
    return tuple(_info().label_names())


def human_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names such as "tench, Tinca tinca" of classes that are among ImageNet's 21k synsets; others stay as they are."""
    return tuple(_human_name(name) if is_synset(name) else name for name in classes)


def class_names_of(source: Source) -> tuple[str, ...]:
    """The source's `class_names` if it has that attribute, else the human-readable names of its classes."""
    return tuple(getattr(source, "class_names", None) or human_names(source.classes))


def has_names(source: Source) -> bool:
    """Whether the source says what its classes are called. Else `classes` are "0", "1", ..., their numbers."""
    return not getattr(source, "unnamed", False)


def numbered_classes(labels: np.ndarray, names: Sequence[str] = ()) -> Classes:
    """The class list of data whose labels are numbers. Labels stay the same unless the names are unsorted synsets.

    Exactly 1000 classes are taken for ImageNet's if they have no names or if most names are ImageNet's in its order.
    Synsets are sorted, as in every source, and the labels change accordingly.

    Args:
        labels: int64 (N,), below len(names) if there are names.
        names: names in label order, if known; else the highest label gives the number of classes.
    """
    num_classes = len(names) or int(labels.max()) + 1
    if names and all(map(is_synset, names)) and len(set(names)) == len(names):
        order = np.argsort(np.array(names))
        classes = tuple(names[i] for i in order)
        return Classes(classes, human_names(classes), np.argsort(order)[labels])
    if num_classes == NUM_IMAGENET and _agree_with_imagenet(names):
        classes = imagenet_synsets()
        return Classes(classes, tuple(names) or human_names(classes), labels)
    classes = tuple(names) or tuple(str(k) for k in range(num_classes))
    return Classes(classes, classes, labels, unnamed=not names)


def _agree_with_imagenet(names: Sequence[str]) -> bool:
    """Whether most names begin like timm's. Revised wordings pass; another data set of 1000 classes does not."""
    if not names:
        return True
    pairs = zip(names, human_names(imagenet_synsets()), strict=True)
    return sum(_first_word(ours) == _first_word(theirs) for ours, theirs in pairs) > NUM_IMAGENET // 2


def _first_word(name: str) -> str:
    return name.split(",")[0].strip().lower().replace("_", " ")


@cache
def _info() -> ImageNetInfo:
    from timm.data import ImageNetInfo  # imports timm, several seconds

    return ImageNetInfo("imagenet-1k")


def _human_name(synset: str) -> str:
    try:
        return _info().label_name_to_description(synset)
    except KeyError:
        return synset

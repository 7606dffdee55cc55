"""The class of a webdataset sample: from a `.cls` member with a number, or a `.json` member."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fixres.pipelines.imagenet_classes import Classes, human_names, imagenet_synsets, is_synset, numbered_classes
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

MAX_CLASSES = 1 << 20  # a higher label is damage, and would create a list of that many names
MAX_LABEL_BYTES = 1 << 20  # JSON with a photograph's metadata is far smaller
NO_NUMBER = -1
_NUMBER_KEYS = ("label", "cls")
_SYNSET_KEYS = ("synset", "wnid", "class_name")


class Label(NamedTuple):
    """A sample's class."""

    number: int  # class number, NO_NUMBER if it is missing
    synset: str = ""  # empty if it is missing


def parse_cls(content: bytes, name: str) -> Label:
    """The class number in a `.cls` member; `name` is the sample's, for errors."""
    text = content.strip()
    if not re.fullmatch(rb"[0-9]{1,9}", text) or int(text) >= MAX_CLASSES:
        raise InputError(f"{name}: its .cls member holds {text[:20]!r}, not a class number")
    return Label(int(text))


def parse_json(content: bytes, name: str) -> Label:
    """Class number ("label" or "cls") and synset ("synset", "wnid" or "class_name") from a `.json` member."""
    try:
        facts = decode_json(content)
    except ValueError:
        raise InputError(f"{name}: its .json member is damaged; write the shard again") from None
    facts = facts if isinstance(facts, dict) else {}
    numbers = [facts[key] for key in _NUMBER_KEYS if type(facts.get(key)) is int]
    synsets = [facts[key] for key in _SYNSET_KEYS if isinstance(facts.get(key), str) and is_synset(facts[key])]
    if len(set(numbers)) > 1 or len(set(synsets)) > 1:
        raise InputError(f"{name}: its .json member names two classes; keep one of {', '.join(_NUMBER_KEYS)}")
    if not numbers and not synsets:
        raise InputError(
            f"{name}: its .json member has no class; it needs a number under {' or '.join(_NUMBER_KEYS)}, or a synset"
            f" under {' or '.join(_SYNSET_KEYS)}"
        )
    if numbers and not 0 <= numbers[0] < MAX_CLASSES:
        raise InputError(f"{name}: its .json member holds the label {numbers[0]}, which is not a class number")
    # Interned: one string per class, not per sample.
    return Label(numbers[0] if numbers else NO_NUMBER, sys.intern(synsets[0]) if synsets else "")


def resolve(labels: Sequence[Label], place: str) -> Classes:
    """The class list of samples with numbers, synsets or both, if there is no table of classes.

    If all synsets have their ImageNet numbers, the classes are ImageNet's 1000. Other synsets are numbered in sorted
    order, and their numbers are ignored.

    Args:
        labels: at least one.
        place: path of the samples, for errors.
    """
    numbers = np.array([label.number for label in labels], np.int64)
    synsets = {label.synset for label in labels}
    if "" not in synsets:
        return _by_synset(labels, numbers)
    if (numbers == NO_NUMBER).any():
        raise InputError(f"{place}: some samples have a class number and others only a synset; write all samples alike")
    return numbered_classes(numbers)


def _by_synset(labels: Sequence[Label], numbers: np.ndarray) -> Classes:
    imagenet = dict(zip(imagenet_synsets(), range(len(imagenet_synsets())), strict=True))
    if all(imagenet.get(label.synset) == label.number for label in labels):
        return Classes(imagenet_synsets(), human_names(imagenet_synsets()), numbers)
    classes = tuple(sorted({label.synset for label in labels}))
    place = {synset: number for number, synset in enumerate(classes)}
    return Classes(classes, human_names(classes), np.array([place[label.synset] for label in labels], np.int64))

"""ReaL labels: ImageNet's val images with every class that is in the image (arXiv 2006.07159).

`real.json` is a list of 50 000 lists of class numbers in the order of ILSVRC2012_val_00000001.JPEG and so on. Images
without a label do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fixres.evaluation.metrics import Scores, wilson_interval
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

_MAX_BYTES = 64 << 20  # the real file has 1 MB


@dataclass(frozen=True)
class RealResult:
    """Attributes:
    top1: fraction of the labeled images whose predicted class is one of their labels.
    top1_interval: its 95 % confidence interval.
    num_images: labeled images.
    num_left_out: images without a label.
    """

    top1: float
    top1_interval: tuple[float, float]
    num_images: int
    num_left_out: int


def read_real(path: Path, num_classes: int) -> list[frozenset[int]]:
    """The labels, class numbers below `num_classes`, of each val image; image number n has index n - 1."""
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; give real.json of https://github.com/google-research/reassessed-imagenet"
        )
    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    try:
        lists = decode_json(data) if len(data) <= _MAX_BYTES else None
    except ValueError:
        lists = None
    if not isinstance(lists, list) or not lists:
        raise InputError(
            f"{path} is not a JSON list with a list of class numbers for each image; download real.json again"
        )
    for number, labels in enumerate(lists, start=1):
        if not isinstance(labels, list) or not all(type(one) is int and 0 <= one < num_classes for one in labels):
            raise InputError(f"{path}: image {number} has labels that are not class numbers below {num_classes}")
    return [frozenset(labels) for labels in lists]


def val_numbers(names: Sequence[str], num_real: int) -> list[int]:
    """The number n, 1 to `num_real`, of each image ILSVRC2012_val_n; names may have folders and endings."""
    numbers = []
    for name in names:
        match = re.search(r"ILSVRC2012_val_([0-9]{8})(?![0-9])", name)
        if match is None or not 1 <= int(match[1]) <= num_real:
            raise InputError(
                f"ReaL labels are for ILSVRC2012_val_00000001 to {num_real:08d}, the data has {name}; use that val"
            )
        numbers.append(int(match[1]))
    return numbers


def score_real(scores: Scores, real: Sequence[frozenset[int]], numbers: Sequence[int]) -> RealResult:
    """Accuracy by the labels of `read_real` and the numbers of `val_numbers`; the scores' indices identify images."""
    if int(scores.indices.min()) < 0:
        raise InputError("this engine does not report which image is which, as ReaL needs; use --engine roc or torch")
    labels = [real[numbers[index] - 1] for index in scores.indices.tolist()]
    known = [(one, predicted) for one, predicted in zip(labels, scores.predictions.tolist(), strict=True) if one]
    if not known:
        raise InputError("none of the images has a ReaL label; use ImageNet's val and the real.json that belongs to it")
    num_correct, num = sum(predicted in one for one, predicted in known), len(known)
    return RealResult(num_correct / num, wilson_interval(num_correct, num), num, len(labels) - num)

"""Extracted probabilities: read, checked, averaged over networks, and scored like those of images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fixres.evaluation.accuracy import EvalResult, summarize
from fixres.evaluation.metrics import OutputScorer, Scores
from fixres.models.classes import Outputs
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

SOFTMAX, EMBEDDINGS, LABELS = "softmax.npy", "embeddings.npy", "labels.npy"
RECORD, NAMES = "extraction.json", "names.json"
_CHUNK = 4096  # images scored at once: 16 MB of 1000 classes
# Rounding error of a sum of 1: float16 keeps 11 bits of each number and loses those below 6e-8.
_SUM_TOLERANCE = {np.dtype(np.float16): 1e-2, np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-3}
_MAX_RECORD_BYTES = 256 << 20


@dataclass(frozen=True)
class SoftmaxFile:
    """One network's probabilities.

    Attributes:
        probabilities: float (N, C), memory-mapped.
        labels: int64 (N,), numbers of outputs.
        record: of the extraction; empty for files of other programs.
        names: the images' names in order; empty if unknown.
        outputs: those of the data's classes, if the network has others, too; else None.
    """

    path: Path
    probabilities: np.ndarray
    labels: np.ndarray
    record: dict[str, Any]
    names: tuple[str, ...]
    outputs: Outputs | None = None


def open_softmax(path: Path, labels: Path | None = None) -> SoftmaxFile:
    """Opens a folder of fixres extract, or a .npy file with labels.npy beside it, or with `labels`.

    Raises:
        InputError: a file is missing, damaged, of another shape, or does not contain numbers.
    """
    file = path / SOFTMAX if path.is_dir() else path
    probabilities = read_array(file)
    if probabilities.ndim != 2 or probabilities.dtype not in _SUM_TOLERANCE or not probabilities.size:
        raise InputError(
            f"{file} holds {probabilities.dtype} of shape {probabilities.shape}; softmax is float (images, classes)"
        )
    labels = labels or file.with_name(LABELS)
    if not labels.is_file():
        raise InputError(f"{file} has no labels: {labels} is missing; add it, or give --labels FILE.npy")
    values = read_array(labels)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"{labels} holds {values.dtype} of shape {values.shape}; labels are whole numbers (images,)")
    if len(values) != len(probabilities):
        raise InputError(f"{file} has {len(probabilities)} images, {labels} {len(values)}; they do not belong together")
    if int(values.min()) < 0 or int(values.max()) >= probabilities.shape[1]:
        raise InputError(
            f"{labels} has labels from {values.min()} to {values.max()}, {file} {probabilities.shape[1]} classes; they "
            "do not belong together"
        )
    record, names = _read_json(file.with_name(RECORD)), _read_json(file.with_name(NAMES))
    if names is not None and (not isinstance(names, list) or len(names) != len(values)):
        raise InputError(f"{file.with_name(NAMES)} does not name the {len(values)} images; extract again")
    plain = record if isinstance(record, dict) else {}
    outputs = _outputs(file, plain, probabilities.shape[1], values)
    return SoftmaxFile(file, probabilities, values.astype(np.int64), plain, tuple(map(str, names or ())), outputs)


def _outputs(file: Path, record: dict[str, Any], num: int, labels: np.ndarray) -> Outputs | None:
    positions = record.get("outputs")
    if positions is None:
        return None
    sound = isinstance(positions, list) and all(type(one) is int and 0 <= one < num for one in positions)
    if not sound or len(set(positions)) < len(positions) or not np.isin(labels, positions).all():
        raise InputError(f"{file.with_name(RECORD)}: its outputs are not those of the labels; extract again")
    return Outputs(torch.tensor(positions), num)


def score_softmax(files: Sequence[SoftmaxFile]) -> tuple[EvalResult, Scores]:
    """Scores the mean of all files' probabilities, read in chunks.

    Raises:
        InputError: files of different images, or values that are not probabilities.
    """
    first = files[0]
    for other in files[1:]:
        _check_same_images(first, other)
    (num, num_classes), outputs, labels = first.probabilities.shape, first.outputs, torch.from_numpy(first.labels)
    if outputs is not None:
        num_classes, labels = len(outputs.positions), outputs.labels(labels)
    scorer, start = OutputScorer(num_classes, outputs, f"the softmax {first.path}"), time.perf_counter()
    for begin in range(0, num, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        mean = sum(_checked(one, part) for one in files) / len(files)
        # A probability that was rounded to 0 counts as the smallest number of its type, so that the loss is finite.
        logs = np.log(np.maximum(mean, np.finfo(first.probabilities.dtype).tiny))
        indices = torch.arange(begin, begin + len(logs))
        scorer.add(torch.from_numpy(logs), labels[part], indices)
    resolution = first.record.get("resolution")
    resolution = resolution if isinstance(resolution, int) and len(files) == 1 else 0
    scores = scorer.finish()
    return summarize(scores, resolution, time.perf_counter() - start), scores


def read_array(path: Path) -> np.ndarray:
    """A .npy file, memory-mapped; Python objects in it are refused."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder of fixres extract, or a .npy file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python: syntax, token, value, overflow, end of file
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: not a .npy file, or damaged ({reason})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path}: an archive of arrays; give a .npy file")
    return array


def _checked(file: SoftmaxFile, part: slice) -> np.ndarray:
    """float64 (B, C): probabilities of some images; each row sums to 1."""
    values = np.asarray(file.probabilities[part], np.float64)
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise InputError(f"{file.path}: image {part.start + int(bad.argmax())} has numbers that are not finite")
    off = (values < 0).any(1) | (np.abs(values.sum(1) - 1) > _SUM_TOLERANCE[file.probabilities.dtype])
    if off.any():
        at = int(off.argmax())
        raise InputError(
            f"{file.path}: the probabilities of image {part.start + at} are below 0 or sum to {values[at].sum():.4g}, "
            "not 1; give softmax, not logits"
        )
    return values


def _check_same_images(one: SoftmaxFile, other: SoftmaxFile) -> None:
    if one.probabilities.shape != other.probabilities.shape:
        raise InputError(
            f"{one.path} has {one.probabilities.shape[0]} images of {one.probabilities.shape[1]} classes, {other.path} "
            f"{other.probabilities.shape[0]} of {other.probabilities.shape[1]}; average only those of the same data"
        )
    same_classes = one.record.get("classes", 0) == other.record.get("classes", 0) or not (one.record and other.record)
    if not np.array_equal(one.labels, other.labels) or not same_classes or (one.names != other.names):
        raise InputError(f"{one.path} and {other.path} are of other images or classes; average only the same data")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            raise ValueError("too long")
        return decode_json(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON ({error}); extract again") from error

"""From scores and labels to accuracies: the same code for scores of a network and of a file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fixres.distributed.process_group import all_gather
from fixres.models.classes import Outputs
from fixres.pipelines.spec import InputError


@dataclass(frozen=True)
class Scores:
    """The result of a pass for each image; all reported figures are computed from it.

    Attributes:
        labels: int64 (N,).
        predictions: int64 (N,), the class with the highest score.
        ranks: int64 (N,), how many classes score higher than the label; equal scores go to the lower class number.
        indices: int64 (N,), position of each image in the data set; -1 if the engine does not know it.
        loss: mean cross entropy.
        all_outputs: the same images scored by all outputs of the network, if it knows more classes than the data has;
            its labels and predictions are numbers of outputs.
    """

    num_classes: int
    labels: np.ndarray
    predictions: np.ndarray
    ranks: np.ndarray
    indices: np.ndarray
    loss: float
    all_outputs: Scores | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def num_in_top(self, k: int) -> int:
        """Images whose label is among the `k` highest scores (all classes, if there are fewer)."""
        return int((self.ranks < min(k, self.num_classes)).sum())

    def class_top1(self) -> np.ndarray:
        """float64 (num_classes,): fraction of correct images of each class; NaN for classes without images."""
        counts = self.class_counts()
        right = np.bincount(self.labels[self.ranks == 0], minlength=self.num_classes)
        return np.divide(right, counts, out=np.full(self.num_classes, np.nan), where=counts > 0)

    def class_counts(self) -> np.ndarray:
        """int64 (num_classes,): images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes)


class Scorer:
    """Collects batches of scores on their device; `what` is their name in errors."""

    def __init__(self, num_classes: int, what: str = "the network") -> None:
        self._num_classes, self._what = num_classes, what
        self._parts: list[tuple[Tensor, ...]] = []
        self._loss: Tensor | float = 0.0
        self._bad: Tensor | bool = False

    def add(self, scores: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Adds a batch: scores float (B, num_classes), logits or logarithms of probabilities; the others int64 (B,).

        Labels are on the device of the scores, indices on any.
        """
        if scores.ndim != 2 or scores.shape[1] != self._num_classes:
            raise InputError(
                f"{self._what} has {scores.shape[-1]} classes, the data {self._num_classes}; they do not fit"
            )
        scores = scores.float()
        self._bad = self._bad | ~torch.isfinite(scores).all()
        self._loss = self._loss + torch.nn.functional.cross_entropy(scores, labels, reduction="sum").double()
        self._parts.append((labels, scores.argmax(1), label_ranks(scores, labels), indices))

    def finish(self) -> Scores:
        """The scores of all batches of all processes. InputError without batches, or if a score is not finite."""
        shares = all_gather((self._columns(), float(self._loss), bool(self._bad)))
        columns = [np.concatenate(column) for column in zip(*(columns for columns, _, _ in shares), strict=True)]
        if not len(columns[0]):
            raise InputError("there are no images to test on; the split is empty")
        if any(bad for _, _, bad in shares):
            raise InputError(f"{self._what} gives scores that are not finite; use another precision or other weights")
        return Scores(self._num_classes, *columns, loss=sum(loss for _, loss, _ in shares) / len(columns[0]))

    def _columns(self) -> list[np.ndarray]:
        """Labels, predictions, ranks and indices of this process, int64 (N,) each."""
        if not self._parts:
            return [np.empty(0, np.int64)] * 4
        return [torch.cat([part.cpu() for part in column]).numpy() for column in zip(*self._parts, strict=True)]


class OutputScorer:
    """A `Scorer` of a network's logits: by the outputs of the data's classes, and by all if there are more."""

    def __init__(self, num_classes: int, outputs: Outputs | None, what: str = "the network") -> None:
        self._outputs, self._chosen = outputs, Scorer(num_classes, what)
        self._all = Scorer(outputs.num_outputs, what) if outputs is not None and outputs.is_subset else None

    def add(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Adds a batch: logits of all outputs, the data's labels; see `Scorer.add`."""
        if self._outputs is None:
            self._chosen.add(logits, labels, indices)
            return
        self._chosen.add(self._outputs.choose(logits), labels, indices)
        if self._all is not None:
            self._all.add(logits, self._outputs.numbers(labels), indices)

    def finish(self) -> Scores:
        """See `Scorer.finish`."""
        scores = self._chosen.finish()
        return scores if self._all is None else replace(scores, all_outputs=self._all.finish())


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """int64 (B,): number of classes before the label, by score (B, C), finite, then by class number."""
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device)[None] < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def wilson_interval(num_correct: int, num: int) -> tuple[float, float]:
    """The 95 % confidence interval of a fraction (Wilson 1927); it also holds for small numbers and near 0 and 1.

    It covers other images drawn from the same distribution, not other seeds.
    """
    from scipy.stats import binomtest

    if num == 0:
        return 0.0, 1.0
    interval = binomtest(num_correct, num).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)

"""Compares an engine's images and labels with the reference's, crop by crop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import Batch, LoaderConfig, TrainCrop

_NUM_WORST = 3


@dataclass(frozen=True)
class Agreement:
    """One engine compared with the reference at one resolution."""

    engine: str  # its name
    crops: str  # "training" (random boxes, the same for both) or "center"
    res: int  # output side in pixels
    mean: np.ndarray  # mean absolute difference of each crop in gray levels, float (N,)
    largest: np.ndarray  # largest absolute difference of each crop in gray levels, float (N,)
    psnr: np.ndarray  # of each crop in dB, float (N,)
    labels: np.ndarray  # whether the labels of each crop are equal, bool (N,)
    coarse: np.ndarray  # whether each crop came from a coarser level of a RoC record, bool (N,)
    worst: np.ndarray  # the engine's crops with the largest mean difference, worst first, uint8 (<= 3, r, r, 3)
    reference: np.ndarray  # the same crops of the reference, uint8 (<= 3, r, r, 3)

    def as_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "crops": self.crops,
            "res": self.res,
            "num_crops": len(self.mean),
            "mean_difference": float(self.mean.mean()),
            "worst_mean_difference": float(self.mean.max()),
            "mean_psnr": float(self.psnr.mean()),
            "psnr_5th_percentile": float(np.percentile(self.psnr, 5)),
            "worst_psnr": float(self.psnr.min()),
            "label_agreement": float(self.labels.mean()),
        }


def agreement(engine: str, config: LoaderConfig, num_epochs: int = 1) -> Agreement | None:
    """Compares an engine with engine `torch` (Pillow) on the same file.

    Returns:
        None if the crops are random and the engine draws its own boxes.
    """
    random = isinstance(config.crop, TrainCrop)
    with open_loader(engine, config) as ours:
        if random and not ours.shares_boxes:
            return None
        with open_loader("torch", replace(config, device="cpu")) as theirs:
            return compare(engine, "training" if random else "center", ours, theirs, num_epochs)


def compare(engine: str, crops: str, ours: Any, theirs: Any, num_epochs: int = 1) -> Agreement:
    """Compares all crops of two loaders that deliver the same samples in the same order."""
    rows, labels, coarse = [], [], []
    worst: list[tuple[float, np.ndarray, np.ndarray]] = []
    for got, wanted in zip(_batches(ours, num_epochs), _batches(theirs, num_epochs), strict=True):
        images, reference = got.images.cpu().numpy(), wanted.images.numpy()
        difference = np.abs(images.astype(np.float32) - reference)
        means, squares = difference.mean((1, 2, 3)), np.maximum((difference**2).mean((1, 2, 3)), 1e-6)
        rows.append(np.column_stack([means, difference.max((1, 2, 3)), 10 * np.log10(255**2 / squares)]))
        labels.append((got.labels.cpu() == wanted.labels).numpy())
        coarse.append(getattr(ours, "last_shifts", np.zeros(len(means))) > 0)
        worst += [(float(means[k]), images[k].copy(), reference[k].copy()) for k in np.argsort(-means)[:_NUM_WORST]]
        worst = sorted(worst, key=lambda one: -one[0])[:_NUM_WORST]
    columns = np.concatenate(rows).T
    pictures = [np.array([one[k] for one in worst]) for k in (1, 2)]
    side = pictures[0].shape[1]
    return Agreement(engine, crops, side, *columns, np.concatenate(labels), np.concatenate(coarse), *pictures)


def _batches(loader: Any, num_epochs: int) -> Iterator[Batch]:
    for epoch in range(num_epochs):
        loader.set_epoch(epoch)
        yield from loader

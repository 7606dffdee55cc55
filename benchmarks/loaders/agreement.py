"""Whether an engine delivers the same pictures and labels as the reference, crop by crop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.loaders import open_loader
from pipelines.spec import EvalCrop, LoaderConfig, TrainCrop

_NUM_WORST = 3


@dataclass(frozen=True)
class Agreement:
    """One engine against the reference at one resolution.

    Attributes:
        engine: its name.
        crops: "training" (random boxes, the same for both) or "center".
        res: output side in pixels.
        mean: for each crop the mean absolute difference in gray levels, float (N,).
        psnr: for each crop, dB, float (N,).
        labels: for each crop whether the labels are equal, bool (N,).
        worst: the engine's crops with the largest mean difference, worst first, uint8 (<= 3, r, r, 3).
        reference: those of the reference, likewise.
    """

    engine: str
    crops: str
    res: int
    mean: np.ndarray
    psnr: np.ndarray
    labels: np.ndarray
    worst: np.ndarray
    reference: np.ndarray

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


def agreement(
    engine: str, path: Path, resolution: int, min_zoom: float, device: str = "cpu", num_workers: int = 2
) -> list[Agreement]:
    """Compares center crops, and training crops if the engine takes its boxes from us.

    Args:
        engine: of pipelines.loaders.
        path: what it reads; the reference reads the same.
        resolution: output side in pixels.
        min_zoom: of RoC records.
        device: where the engine's batches arrive.
        num_workers: threads or processes of each.
    """
    found = []
    for name, crop in (("training", TrainCrop()), ("center", EvalCrop())):
        config = LoaderConfig(path, crop, resolution, 50, num_workers=num_workers, min_zoom=min_zoom, device=device)
        with open_loader(engine, config) as ours:
            if name == "center" or ours.shares_boxes:
                reference = LoaderConfig(path, crop, resolution, 50, num_workers=num_workers)
                with open_loader("torch", reference) as theirs:
                    found.append(_compare(engine, name, resolution, ours, theirs))
    return found


def _compare(engine: str, crops: str, resolution: int, ours: Any, theirs: Any) -> Agreement:
    means, squares, labels = [], [], []
    worst: list[tuple[float, np.ndarray, np.ndarray]] = []
    for got, wanted in zip(ours, theirs, strict=True):
        pictures, reference = got.images.cpu().numpy(), wanted.images.numpy()
        difference = np.abs(pictures.astype(np.float32) - reference)
        means.append(difference.mean((1, 2, 3)))
        squares.append(np.maximum((difference**2).mean((1, 2, 3)), 1e-6))
        labels.append((got.labels.cpu() == wanted.labels).numpy())
        for k in np.argsort(means[-1])[::-1][:_NUM_WORST]:
            worst.append((float(means[-1][k]), pictures[k].copy(), reference[k].copy()))
        worst = sorted(worst, key=lambda one: -one[0])[:_NUM_WORST]
    psnr = 10 * np.log10(255**2 / np.concatenate(squares))
    worst_pictures, worst_reference = (np.array([one[k] for one in worst]) for k in (1, 2))
    return Agreement(
        engine, crops, resolution, np.concatenate(means), psnr, np.concatenate(labels), worst_pictures, worst_reference
    )

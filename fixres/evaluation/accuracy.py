"""Accuracy on a split at one or several test resolutions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fixres.distributed.process_group import num_processes, share_state
from fixres.evaluation.metrics import OutputScorer, Scores
from fixres.models.predictor import Predictor
from fixres.observability.console import bar
from fixres.pipelines.spec import Loader


@dataclass(frozen=True)
class EvalResult:
    """Figures of one pass over a test split. Accuracies are fractions.

    Attributes:
        test_res: test resolution in pixels.
        top1: fraction of images whose class has the highest score.
        top5: fraction of images whose class is among the five highest scores (all classes, if there are fewer).
        class_mean_top1: mean of the top1 of each class that has images.
        loss: mean cross entropy, without label smoothing.
        num_images: images evaluated.
        images_per_second: speed of the pass, loading included.
        num_outputs: of a network that knows more classes than the data has; None if it knows the same. The figures
            above then count the outputs of the data's classes only, those below all outputs.
        top1_all_outputs: fraction of images whose class has the highest score among all outputs.
        top5_all_outputs: the same for the five highest.
    """

    test_res: int
    top1: float
    top5: float
    class_mean_top1: float
    loss: float
    num_images: int
    images_per_second: float
    num_outputs: int | None = None
    top1_all_outputs: float | None = None
    top5_all_outputs: float | None = None


def evaluate(predictor: Predictor, loader: Loader, title: str = "test") -> EvalResult:
    """One pass over `loader` at its current resolution. Leaves the network in eval mode."""
    return measure(predictor, loader, title)[0]


def measure(predictor: Predictor, loader: Loader, title: str = "test") -> tuple[EvalResult, Scores]:
    """`evaluate` with the scores of each image; each process tests a part, and all get the result of all parts."""
    device, scorer = predictor.precision.device, OutputScorer(len(loader.classes), predictor.outputs)
    predictor.net.eval()
    share_state(predictor.net)
    start = time.perf_counter()
    with torch.inference_mode(), bar(loader.num_samples, title) as shown:
        for batch in loader:
            if len(batch.labels):  # a short last batch may have no image for this process
                scorer.add(predictor(batch.images), batch.labels.to(device, non_blocking=True), batch.indices)
            shown.update(len(batch.labels) * num_processes())
    scores = scorer.finish()
    return summarize(scores, loader.resolution, time.perf_counter() - start), scores


def summarize(scores: Scores, test_res: int, seconds: float) -> EvalResult:
    """The figures of a pass that took `seconds`."""
    num = len(scores)
    return EvalResult(
        test_res=test_res,
        top1=scores.num_in_top(1) / num,
        top5=scores.num_in_top(5) / num,
        class_mean_top1=float(np.nanmean(scores.class_top1())),
        loss=scores.loss,
        num_images=num,
        images_per_second=num / seconds if seconds > 0 else 0.0,
        **_of_all_outputs(scores.all_outputs),
    )


def _of_all_outputs(scores: Scores | None) -> dict[str, Any]:
    if scores is None:
        return {}
    top1, top5 = (scores.num_in_top(k) / len(scores) for k in (1, 5))
    return {"num_outputs": scores.num_classes, "top1_all_outputs": top1, "top5_all_outputs": top5}


def sweep(predictor: Predictor, loader: Loader, resolutions: Iterable[int], title: str) -> list[EvalResult]:
    """`evaluate` at each resolution, in the given order; a network of fixed size is tested as a copy of that size."""
    results = []
    for resolution in resolutions:
        loader.set_resolution(resolution)
        results.append(evaluate(predictor.at(resolution), loader, f"{title} at {resolution} px"))
    return results


def at(sweep: list[EvalResult], resolution: int) -> EvalResult:
    """The sweep's result at one test resolution (pixels)."""
    return next(result for result in sweep if result.test_res == resolution)

"""Accuracy on a split at one test resolution, or at a row of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from fixres.hardware import Precision
from fixres.models import Normalise
from pipelines.spec import InputError, Loader


@dataclass(frozen=True)
class EvalResult:
    """Figures of one pass over a test split. Accuracies are fractions.

    Attributes:
        test_res: test resolution in pixels.
        top1: share of images whose class has the highest score.
        top5: share of images whose class is among the five highest (all classes, if there are fewer).
        class_mean_top1: top1 averaged over classes, each weighing the same.
        loss: mean cross entropy, without label smoothing.
        num_images: images evaluated.
        images_per_second: speed of the pass, loading included.
    """

    test_res: int
    top1: float
    top5: float
    class_mean_top1: float
    loss: float
    num_images: int
    images_per_second: float


def evaluate(
    net: nn.Module, normalise: Normalise, loader: Loader, precision: Precision, title: str = "test"
) -> EvalResult:
    """One pass over `loader` at its current resolution. Leaves the network in eval mode."""
    device, num_classes = precision.device, len(loader.classes)
    metrics = _metrics(num_classes).to(device)
    loss_sum = torch.zeros((), device=device)
    net.eval()
    start = time.perf_counter()
    with (
        torch.inference_mode(),
        tqdm(total=loader.num_samples, desc=title, unit="img", leave=False, mininterval=0.5, disable=None) as bar,
    ):
        num_images = 0
        for batch in loader:
            labels = batch.labels.to(device, non_blocking=True)
            with precision.autocast():
                logits = net(normalise(batch.images.to(device, non_blocking=True)))
            _check_classes(logits, num_classes)
            loss_sum += nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
            metrics.update(logits.float(), labels)
            num_images += len(labels)
            bar.update(len(labels))
    values = {name: float(value) for name, value in metrics.compute().items()}
    seconds = time.perf_counter() - start
    return EvalResult(loader.resolution, **values, loss=loss_sum.item() / num_images, num_images=num_images,
                      images_per_second=num_images / seconds)  # fmt: skip


def _metrics(num_classes: int) -> nn.Module:
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy

    return MetricCollection(
        {
            "top1": MulticlassAccuracy(num_classes, average="micro"),
            "top5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
            "class_mean_top1": MulticlassAccuracy(num_classes, average="macro"),
        },
        compute_groups=False,
    )


def _check_classes(logits: torch.Tensor, num_classes: int) -> None:
    if logits.shape[1] != num_classes:
        raise InputError(
            f"the network has {logits.shape[1]} classes, the data {num_classes}; they do not belong together"
        )


def sweep(
    net: nn.Module, normalise: Normalise, loader: Loader, precision: Precision, resolutions: Iterable[int], title: str
) -> list[EvalResult]:
    """`evaluate` at each resolution, in the given order."""
    results = []
    for resolution in resolutions:
        loader.set_resolution(resolution)
        results.append(evaluate(net, normalise, loader, precision, f"{title} at {resolution} px"))
    return results

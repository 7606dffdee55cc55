"""Tests a network: accuracies with confidence intervals, ReaL labels, and the cost at each resolution."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fixres.config.jobs import EvaluateJob
from fixres.evaluation.accuracy import EvalResult, measure
from fixres.evaluation.metrics import Scores, wilson_interval
from fixres.evaluation.predictions import SoftmaxFile, open_softmax, score_softmax
from fixres.evaluation.real_labels import RealResult, read_real, score_real, val_numbers
from fixres.models.pretrained import OpenedForJob
from fixres.models.probe import forward_flops
from fixres.pipelines.spec import InputError, OpenLoader, one_line


@dataclass(frozen=True)
class Evaluation:
    """A pass over a test split at one resolution. Accuracies are fractions, intervals of 95 % confidence.

    Attributes:
        classes: class names in label order; empty if unknown.
        class_top1: fraction of correct images of each class, None for classes without images.
        class_counts: number of images of each class.
        top1_all_outputs_interval: that of the result's top1_all_outputs, if there is one.
        gflops: billions of additions and multiplications of one image's forward pass; None from softmax.
        real: accuracy by ReaL labels, None without --real.
    """

    result: EvalResult
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    classes: tuple[str, ...]
    class_top1: tuple[float | None, ...]
    class_counts: tuple[int, ...]
    top1_all_outputs_interval: tuple[float, float] | None = None
    gflops: float | None = None
    real: RealResult | None = None


def evaluate_network(
    job: EvaluateJob, opened: OpenedForJob, open_loader: OpenLoader, names: Sequence[str] | None = None
) -> list[Evaluation]:
    """Tests the job's network on the test split at each of its resolutions.

    Args:
        job: what to do.
        opened: the network, for the classes of the data.
        open_loader: the data.
        names: of the test images in order; ReaL labels need them.
    """
    predictor, info = opened
    real = _read_real(job.real, names, len(info.classes))
    if real is not None and list(info.classes) != sorted(info.classes):
        raise InputError("ReaL labels are ImageNet's class numbers, but the network's outputs have another order")
    resolutions = job.test_res or [info.test_res]
    for resolution in resolutions:
        predictor.at(resolution)  # finds a size that it cannot take before the first test
    settings = {"crop": info.eval_crop, "resolution": resolutions[0], "batch_size": job.batch_size}
    evaluations = []
    with closing(open_loader("val", **settings)) as loader:
        for resolution in resolutions:
            loader.set_resolution(resolution)
            at = predictor.at(resolution)
            result, scores = measure(at, loader, f"test at {resolution} px")
            gflops = forward_flops(at.net, at.normalize, resolution) / 1e9
            evaluations.append(_evaluation(result, scores, loader.classes, real, gflops))
    return evaluations


def evaluate_softmax(job: EvaluateJob) -> Evaluation:
    """Scores the job's softmax files, their mean if there are several."""
    files = [open_softmax(path, job.labels) for path in job.softmax]
    result, scores = score_softmax(files)
    real = _read_real(job.real, files[0].names or None, files[0].probabilities.shape[1])
    return _evaluation(result, scores, _class_names(files[0]), real, None)


def _class_names(file: SoftmaxFile) -> tuple[str, ...]:
    """Names of the data's classes; empty if they are unknown."""
    classes, num_outputs = file.record.get("classes"), file.probabilities.shape[1]
    if not isinstance(classes, list) or len(classes) != num_outputs or not all(isinstance(one, str) for one in classes):
        return ()
    return tuple(classes if file.outputs is None else [classes[one] for one in file.outputs.positions.tolist()])


def _read_real(
    path: Path | None, names: Sequence[str] | None, num_classes: int
) -> tuple[list[frozenset[int]], list[int]] | None:
    """ReaL labels of ILSVRC2012's val, and the number of each image of the data in it; None without a file."""
    if path is None:
        return None
    labels = read_real(path, num_classes)
    if names is None:
        raise InputError(
            "this data does not keep the images' names, so ReaL labels cannot be assigned to them; give --val_labels "
            "with the labels of ImageNet's val, or the images as files"
        )
    return labels, val_numbers(names, len(labels))


def _evaluation(
    result: EvalResult, scores: Scores, classes: tuple[str, ...], real: tuple | None, gflops: float | None
) -> Evaluation:
    top1, overall = scores.class_top1(), scores.all_outputs
    return Evaluation(
        result=result,
        top1_interval=wilson_interval(scores.num_in_top(1), len(scores)),
        top5_interval=wilson_interval(scores.num_in_top(5), len(scores)),
        classes=classes,
        class_top1=tuple(None if value != value else value for value in top1.tolist()),
        class_counts=tuple(scores.class_counts().tolist()),
        top1_all_outputs_interval=None if overall is None else wilson_interval(overall.num_in_top(1), len(overall)),
        gflops=gflops,
        # ReaL labels are numbers of outputs.
        real=None if real is None else score_real(overall or scores, *real),
    )


def evaluation_table(evaluations: Sequence[Evaluation]) -> str:
    """A line for each resolution, and a line for ReaL below it. Brackets hold the 95 % intervals."""
    lines = []
    for one in evaluations:
        result = one.result
        source = f"{result.test_res} px" if result.test_res else "softmax"
        if result.num_outputs is not None:
            source += f", outputs of the data's {len(one.class_counts)} classes only"
        parts = [
            f"{source}: top1 {_percent(result.top1, one.top1_interval)}",
            f"top5 {_percent(result.top5, one.top5_interval)}",
            f"class mean {result.class_mean_top1:.2%}, lowest {_hardest(one)}",
            f"loss {result.loss:.3f}",
            f"{result.num_images} images",
        ]
        if one.gflops is not None:
            parts += [f"{result.images_per_second:.0f} images/s", f"{one.gflops:.3g} GFLOPs an image"]
        lines.append(", ".join(parts))
        if result.num_outputs is not None:
            overall = _percent(result.top1_all_outputs, one.top1_all_outputs_interval)
            lines.append(f"  all {result.num_outputs} outputs: top1 {overall}, top5 {result.top5_all_outputs:.2%}")
        if one.real is not None:
            real = one.real
            lines.append(
                f"  ReaL: top1 {_percent(real.top1, real.top1_interval)}, {real.num_images} images, "
                f"{real.num_left_out} without a label left out"
            )
    return "\n".join(lines)


def evaluation_record(job: EvaluateJob, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The content of --json."""
    from fixres.config.parsing import as_plain
    from fixres.observability.environment import capture

    results = [asdict(one) | asdict(one.result) for one in evaluations]
    for one in results:
        del one["result"]
    return {"version": 1, "kind": "evaluation", "job": as_plain(job), "results": results, "environment": capture()}


def _percent(value: float | None, interval: tuple[float, float] | None) -> str:
    assert value is not None and interval is not None
    return f"{value:.2%}, [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _hardest(one: Evaluation) -> str:
    """The lowest accuracy of a class, and the class."""
    known = [(value, label) for label, value in enumerate(one.class_top1) if value is not None]
    value, label = min(known)
    return one_line(f"{value:.1%} ({one.classes[label] if one.classes else f'class {label}'})")

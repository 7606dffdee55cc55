"""What variants report, as typed records that become report.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fixres.evaluation.accuracy import EvalResult
from fixres.training.trainer import EpochResult


@dataclass(frozen=True)
class CurvePoint:
    """A test during training, against the training clock.

    Attributes:
        epoch: epochs done.
        train_seconds: training clock.
        top1: accuracy at the variant's test resolution.
        loss: training loss of the last epoch.
    """

    epoch: int
    train_seconds: float
    top1: float
    loss: float


@dataclass(frozen=True)
class VariantResult:
    """What a variant reached and what it took. Accuracies are fractions, at `test_res` where not said otherwise.

    Attributes:
        name: the variant.
        train_res: last training resolution in pixels.
        train_res_by_epoch: all of them.
        test_res: test resolution in pixels.
        epochs: passes over the training images.
        top1_before_finetune: top1 after training.
        top1: top1 at the end, after the fix if there is one.
        top5: likewise.
        class_mean_top1: likewise, every class weighing the same.
        train_seconds: training clock, waiting for data included.
        finetune_seconds: fine-tuning for the test resolution, opening its loader included.
        evaluate_seconds: tests, during and after training.
        wall_seconds: all the variant took.
        paused_seconds: program less training and finetune: tests, opening loaders, saving.
        images_per_second: training speed over the run.
        data_wait_share: share of the training clock spent waiting for data.
        num_bad_samples: bad samples replaced while training.
        sweep_before: tests over resolutions after training.
        sweep_after: the same after the fix; empty without one.
        curve: tests during training.
        finetune_epochs: losses and speeds of the fix.
    """

    name: str
    train_res: int
    train_res_by_epoch: list[int]
    test_res: int
    epochs: int
    top1_before_finetune: float
    top1: float
    top5: float
    class_mean_top1: float
    train_seconds: float
    finetune_seconds: float
    evaluate_seconds: float
    wall_seconds: float
    paused_seconds: float
    images_per_second: float
    data_wait_share: float
    num_bad_samples: int
    sweep_before: list[EvalResult]
    sweep_after: list[EvalResult]
    curve: list[CurvePoint]
    finetune_epochs: list[EpochResult]


@dataclass
class Ending:
    """What of a variant's end is done, so that a run that goes on does not do it again.

    Attributes:
        before: tests over resolutions after training; None before they are done.
        finetune_epochs: losses and speeds of the fix; likewise.
    """

    before: list[EvalResult] | None = None
    finetune_epochs: list[EpochResult] | None = None


def variant_result(values: dict[str, Any]) -> VariantResult:
    """The result that `dataclasses.asdict` took apart."""
    kinds = {"sweep_before": EvalResult, "sweep_after": EvalResult, "curve": CurvePoint, "finetune_epochs": EpochResult}
    return VariantResult(**values | {name: [kind(**one) for one in values[name]] for name, kind in kinds.items()})


def ending(values: dict[str, Any]) -> Ending:
    """The ending that `dataclasses.asdict` took apart."""
    kinds = {"before": EvalResult, "finetune_epochs": EpochResult}
    return Ending(
        **{name: [kind(**one) for one in values[name]] for name, kind in kinds.items() if values[name] is not None}
    )

"""The results of a variant as typed records, which become report.json, and its state in training checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from fixres.evaluation.accuracy import EvalResult
from fixres.observability.clock import Clock
from fixres.training.progress import EpochResult, Progress


@dataclass(frozen=True)
class CurvePoint:
    """An evaluation during training.

    Attributes:
        epoch: epochs done.
        train_seconds: training time so far.
        top1: accuracy at the variant's test resolution.
        loss: training loss of the last epoch.
    """

    epoch: int
    train_seconds: float
    top1: float
    loss: float


@dataclass(frozen=True)
class VariantResult:
    """A variant's accuracy and times. Accuracies are fractions, at `test_res` where not said otherwise.

    Attributes:
        name: the variant.
        train_res: last training resolution in pixels.
        train_res_by_epoch: the training resolution of each epoch.
        test_res: test resolution in pixels.
        epochs: passes over the training images.
        top1_before_finetune: top1 after training.
        top1: top1 at the end, after fine-tuning if there is one.
        top5: the same for top5.
        class_mean_top1: the same, with equal weight for every class.
        train_seconds: training time, waiting for data included.
        finetune_seconds: fine-tuning for the test resolution, opening its loader included.
        evaluate_seconds: evaluation during and after training.
        wall_seconds: wall-clock time of everything that the variant did.
        paused_seconds: wall-clock time without training and fine-tuning: evaluation, opening loaders, saving.
        images_per_second: training speed over the run.
        data_wait_share: share of the training time spent waiting for data.
        num_bad_samples: bad samples replaced while training.
        sweep_before: evaluation over resolutions after training.
        sweep_after: the same after fine-tuning; empty without fine-tuning.
        curve: evaluations during training.
        finetune_epochs: losses and speeds of the fine-tuning.
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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VariantResult:
        """The inverse of `dataclasses.asdict`."""
        kinds = {"sweep_before": EvalResult, "sweep_after": EvalResult, "curve": CurvePoint,
                 "finetune_epochs": EpochResult}  # fmt: skip
        return cls(**values | {name: _records(kind, values[name]) for name, kind in kinds.items()})


@dataclass
class TrainingState:
    """What a variant has done so far: see `VariantResult`. `progress` is that of the epoch that is running."""

    epochs: list[EpochResult] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    clock: Clock = field(default_factory=Clock)
    sweep_before: list[EvalResult] | None = None  # None: not done yet
    finetune_epochs: list[EpochResult] | None = None  # None: not done yet

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a training checkpoint; to be called in all processes."""
        return {
            "progress": self.progress.state_dict(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "curve": [asdict(point) for point in self.curve],
            "ending": {"before": _plain(self.sweep_before), "finetune_epochs": _plain(self.finetune_epochs)},
            "clock": self.clock.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, on any number of processes; times are added."""
        self.epochs = _records(EpochResult, state["epochs"])
        self.curve = _records(CurvePoint, state["curve"])
        ending = state.get("ending", {})
        self.sweep_before = _records(EvalResult, ending.get("before"))
        self.finetune_epochs = _records(EpochResult, ending.get("finetune_epochs"))
        self.clock.load_state_dict(state["clock"])
        self.progress = Progress.from_state_dict(state["progress"])


def _plain(records: list[Any] | None) -> list[dict[str, Any]] | None:
    return None if records is None else [asdict(record) for record in records]


def _records(kind: type, values: list[dict[str, Any]] | None) -> Any:
    return None if values is None else [kind(**value) for value in values]

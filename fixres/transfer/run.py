"""A run of detection or segmentation: training with checkpoints, evaluation, weights and report in a run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import nn

from fixres.config.transfer import TransferRecipe
from fixres.config.validation import as_plain
from fixres.distributed.process_group import all_gather, is_main, num_processes, share_state, wait_for_all
from fixres.experiment.results import TrainingState
from fixres.experiment.resume import check_resumable, header, mismatch_as_input_error, resume_hint
from fixres.experiment.run_folder import RunLog
from fixres.fault_tolerance.lock import locked
from fixres.fault_tolerance.manager import FaultTolerance
from fixres.models.checkpoint import TASK_FORMATS, save_hashed
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.observability.console import log
from fixres.observability.environment import capture
from fixres.pipelines.runtime.atomic_files import atomic_file
from fixres.pipelines.spec import InputError
from fixres.training.progress import Progress
from fixres.training.schedule import training_lr
from fixres.training.trainer import Trainer
from fixres.transfer.feature_pyramid import Backbone, check_weights
from fixres.transfer.report import TransferReport, write_report
from fixres.transfer.sample_loader import SampleLoader

WEIGHTS = "trained.pt"
VERSION = 1
_NUM_PICTURES = 6


class Task(Protocol):
    """A network with a backbone, its trainer and its data.

    Attributes:
        net: what is trained and saved.
        backbone: the part that was trained before.
        trainer: trains it on the batches of `train`.
        train: training images.
        test: test images, one in each step of a process.
        classes: names in label order.
    """

    net: nn.Module
    backbone: Backbone
    trainer: Trainer
    train: SampleLoader
    test: SampleLoader
    classes: tuple[str, ...]

    def check(self, loader: Any) -> None:
        """Reads all batches of `loader`, which is around `test`; InputError if they cannot test a network."""
        ...

    def evaluate(self, loader: Any, title: str) -> Any:
        """The metrics, a dataclass, on the batches of `loader`, which is `test` or around it; in all processes."""
        ...

    def pictures(self, num: int) -> list[bytes]:
        """PNGs of the first test images, each with the annotation on the left and the prediction on the right."""
        ...


def run_transfer(
    recipe: TransferRecipe, open_task: Callable[[Precision], Task], data: dict[str, Any]
) -> TransferReport | None:
    """Trains, evaluates, writes weights and report into the run folder; resumes with `resume: auto`.

    Args:
        recipe: of detection or segmentation.
        open_task: opens network and loaders.
        data: describes the data; its "fingerprint" must be that of the run that is resumed.

    Returns:
        The report in the main process, None in others.

    Raises:
        Preempted: a signal asked the run to end; a training checkpoint is saved.
        InputError: anything that is wrong with recipe, weights or data.
    """
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    environment = capture() | {"precision": precision.name, "device": str(device), "num_processes": num_processes()}
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(locked(recipe.folder))
        task = open_task(precision)
        for loader in (task.train, task.test):
            stack.callback(loader.close)
        run = _Run(recipe, data, task)
        run.open(precision, environment, stack)
        with resume_hint(run.fault_tolerance):
            run.train()
            result = run.finish()
    if not is_main():
        return None
    report = TransferReport(recipe, result, run.state, run.curve, run.task.backbone, data, environment)
    write_report(report, run.task.pictures(_NUM_PICTURES), recipe.folder)
    return report


class _Run:
    """What is trained, what is done, and how it is saved."""

    fault_tolerance: FaultTolerance
    run_log: RunLog

    def __init__(self, recipe: TransferRecipe, data: dict[str, Any], task: Task) -> None:
        self.recipe, self.data, self.task = recipe, data, task
        self.state, self.curve = TrainingState(), []
        log(str(task.backbone.weights))

    def open(self, precision: Precision, environment: dict[str, Any], stack: ExitStack) -> None:
        """Opens the run folder and restores a training checkpoint; `stack` closes what is opened."""
        recipe = self.recipe
        self.fault_tolerance = stack.enter_context(
            FaultTolerance(recipe.folder, recipe.fault_tolerance, precision, self.state_dict)
        )
        self.fault_tolerance.clock = self.state.clock
        watched = self.fault_tolerance.watched(lambda split: {"train": self.task.train, "val": self.task.test}[split])
        self._train_loader, self._test_loader = watched("train"), watched("val")
        checkpoint = self.fault_tolerance.newest() if recipe.resume == "auto" else None
        if checkpoint is not None:
            with mismatch_as_input_error(recipe.folder):
                check_resumable(checkpoint, recipe, self.data, recipe.folder)
                self.load_state_dict(checkpoint)
        else:
            if recipe.resume == "auto":
                log(f"{recipe.folder}: no training checkpoint to resume from; a new run begins")
            with self.fault_tolerance.interruptible():  # found after the training, a bad file would cost all of it
                self.task.check(self._test_loader)
            self.task.test.close()  # its worker processes; the evaluation starts others
        resume_at = None if checkpoint is None else checkpoint["metrics_bytes"]
        self.run_log = RunLog(recipe.folder, recipe, environment, resume_at)
        stack.callback(self.run_log.close)

    def train(self) -> None:
        """Trains the epochs that are left."""
        recipe, state, task = self.recipe, self.state, self.task
        for epoch in range(len(state.epochs), recipe.epochs):
            with state.clock.stage("train"):
                task.net.train()
                task.train.set_epoch(epoch, state.progress.position)
                task.trainer.set_epoch(epoch)
                result = task.trainer.epoch(
                    self._train_loader,
                    lambda done, epoch=epoch: training_lr(epoch + done, recipe.epochs, recipe.optim),
                    f"{recipe.task}: epoch {epoch + 1}/{recipe.epochs}",
                    progress=state.progress,
                    monitor=self.fault_tolerance,
                )
            state.epochs.append(result)
            state.progress = Progress()
            self.run_log.write(recipe.task, "train", epoch + 1, result)
            self.fault_tolerance.end_epoch()
            if recipe.eval_every and (epoch + 1) % recipe.eval_every == 0 and epoch + 1 < recipe.epochs:
                self._evaluate()

    def finish(self) -> dict[str, Any]:
        """Evaluates and saves the trained network; returns the metrics."""
        self.fault_tolerance.save()
        with self.fault_tolerance.interruptible():
            result = self._evaluate()
        if is_main():
            self._save_weights()
        self.fault_tolerance.save()
        wait_for_all()
        return result

    def _evaluate(self) -> dict[str, Any]:
        with self.state.clock.stage("evaluate"):
            share_state(self.task.net)
            result = asdict(self.task.evaluate(self._test_loader, f"{self.recipe.task}: evaluation"))
        num_epochs = len(self.state.epochs)
        self.run_log.write(self.recipe.task, "test", num_epochs, result)
        self.curve = [one for one in self.curve if one["epoch"] < num_epochs] + [{"epoch": num_epochs, **result}]
        return result

    def _save_weights(self) -> None:
        backbone = self.task.backbone.info
        content = {
            "format": TASK_FORMATS[self.recipe.task],
            "version": VERSION,
            "classes": list(self.task.classes),
            "backbone": {
                "model": backbone.model,
                "model_kwargs": backbone.model_kwargs,
                "mean": list(backbone.mean),
                "std": list(backbone.std),
            },
            "recipe": as_plain(self.recipe),
            "state_dict": self.task.net.state_dict(),
        }
        with self.state.clock.stage("save"), atomic_file(self.recipe.folder / WEIGHTS, overwrite=True) as partial:
            save_hashed(content, partial)

    def state_dict(self) -> dict[str, Any] | None:
        """A training checkpoint; None if weights are not finite. To be called in all processes."""
        values = [value for value in self.task.net.state_dict().values() if value.is_floating_point()]
        if not all(all_gather(bool(torch.stack([value.isfinite().all() for value in values]).all()))):
            return None
        return header(self.recipe, self.data) | {
            "metrics_bytes": self.run_log.num_bytes,
            "classes": list(self.task.classes),
            "net": self.task.net.state_dict(),
            "stepper": self.task.trainer.stepper.state_dict(),
            "training": self.state.state_dict(),
            "curve": self.curve,
        }

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        classes = list(self.task.classes)
        if (then := checkpoint.get("classes", classes)) != classes:
            named = next(f"{old!r}, now {new!r}" for old, new in zip_longest(then, classes) if old != new)
            raise InputError(f"{self.recipe.folder}: a class of the run to resume was {named}; restore its name")
        self.task.net.load_state_dict(checkpoint["net"])
        self.task.trainer.stepper.load_state_dict(checkpoint["stepper"])
        self.state.load_state_dict(checkpoint["training"])
        self.curve = list(checkpoint["curve"])


def check_before_data(recipe: TransferRecipe) -> None:
    """Raises the errors about recipe, device, precision and files of weights, without data."""
    recipe.check_complete()
    check_weights(recipe.backbone)
    choose_precision(recipe.precision, choose_device(recipe.device))
    if recipe.optim.steps is not None and recipe.optim.steps.milestones[-1] >= recipe.epochs:
        last = recipe.optim.steps.milestones[-1]
        raise InputError(f"optim.steps.milestones: epoch {last} is not reached in {recipe.epochs} epochs; lower it")

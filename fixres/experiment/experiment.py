"""The variants of a recipe on the same data, with the same seeds and epochs; a run that can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from fixres.config.recipe import Recipe
from fixres.distributed.process_group import is_main, num_processes, sharded, wait_for_all
from fixres.experiment.report import Report, write_report
from fixres.experiment.results import VariantResult
from fixres.experiment.resume import check_resumable, header, mismatch_as_input_error, resume_hint, upgraded
from fixres.experiment.run_folder import RunLog
from fixres.experiment.variant import VariantRun
from fixres.experiment.variant_parts import VariantPlan
from fixres.fault_tolerance.lock import locked
from fixres.fault_tolerance.manager import FaultTolerance
from fixres.models.factory import check_name, create_model
from fixres.models.network_size import without_values
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.observability.console import log
from fixres.observability.environment import capture
from fixres.pipelines.runtime.atomic_files import check_target
from fixres.pipelines.spec import OpenLoader


def check_before_data(recipe: Recipe) -> None:
    """Raises the errors of `run_experiment` about schedules, device, network and run folder, without the data."""
    recipe.check_schedules()
    choose_precision(recipe.precision, choose_device(recipe.device))
    check_name(recipe.model)
    check_target(recipe.folder, folder=True)


def run_experiment(
    recipe: Recipe,
    open_loader: OpenLoader,
    data: dict[str, object],
    check_data: Callable[[], None] = lambda: None,
) -> Report | None:
    """Trains, evaluates and fine-tunes every variant of `recipe` and writes the report into its run folder.

    The variants are trained in turn, one epoch each: on a shared machine a slow minute then slows all of them. With
    `resume: auto` the run continues from the newest intact training checkpoint in the run folder.

    Args:
        open_loader: opens "train" or "val" with fields of LoaderConfig.
        data: describes the data in the report: path, engine, sizes, preparation time. A resumed run needs the same
            "fingerprint" as before.
        check_data: raises InputError if the files of the data have changed since they were opened.

    Returns:
        The content of report.json; None in processes other than the main one.

    Raises:
        Preempted: a signal asked the run to end; a training checkpoint is saved.
    """
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device, without_values(lambda: create_model(recipe.model, 1)))
    if recipe.precision == "auto" and precision.name != "fp32":
        log(f"precision {precision.name}: usually the fastest on {device}; --precision fp32 for full precision")
    environment = capture() | {"precision": precision.name, "device": str(device), "num_processes": num_processes()}
    recipe = _with_global_batch_size(recipe)
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(locked(recipe.folder))
        experiment = _open(recipe, open_loader, data, check_data, precision, environment, stack)
        with resume_hint(experiment.fault_tolerance):
            experiment.train()
            results = experiment.finish()
    if not is_main():
        return None
    report = Report(recipe, results, environment, data | experiment.num_images, experiment.crops)
    write_report(report, recipe.folder)
    return report


def _open(
    recipe: Recipe,
    open_loader: OpenLoader,
    data: dict[str, Any],
    check_data: Callable[[], None],
    precision: Precision,
    environment: dict[str, Any],
    stack: ExitStack,
) -> _Experiment:
    """Opens run folder, loaders and variants, and restores a training checkpoint; `stack` closes them."""
    fault_tolerance = stack.enter_context(
        FaultTolerance(recipe.folder, recipe.fault_tolerance, precision, lambda: experiment.state_dict())
    )
    checkpoint = _find_checkpoint(recipe, data, fault_tolerance)
    resume_at = None if checkpoint is None else checkpoint["metrics_bytes"]
    run_log = RunLog(recipe.folder, recipe, environment, resume_at)
    stack.callback(run_log.close)
    open_loader = fault_tolerance.watched(sharded(open_loader))
    resolution, size = recipe.sweep_resolutions()[0], recipe.optim.batch_size
    eval_loader = open_loader("val", crop=recipe.eval_crop, resolution=resolution, batch_size=size, seed=recipe.seed)
    stack.callback(eval_loader.close)
    variants = []
    for name in recipe.variants:
        variants.append(VariantRun(VariantPlan(name, recipe), open_loader, eval_loader, precision, run_log))
        stack.callback(variants[-1].data.loader.close)
    experiment = _Experiment(recipe, data, check_data, variants, run_log, fault_tolerance)
    if checkpoint is not None:
        experiment.load_state_dict(checkpoint)
    return experiment


def _with_global_batch_size(recipe: Recipe) -> Recipe:
    """The recipe with the batch size of all processes, if it gives the batch size of each."""
    optim = recipe.optim
    if optim.per_process is None:
        return recipe
    return replace(recipe, optim=replace(optim, batch_size=optim.per_process * num_processes()))


def _find_checkpoint(recipe: Recipe, data: dict[str, Any], fault_tolerance: FaultTolerance) -> dict[str, Any] | None:
    """The training checkpoint from which the run is resumed; None for a new run."""
    if recipe.resume == "no":
        return None
    checkpoint = fault_tolerance.newest()
    if checkpoint is None:
        log(f"{recipe.folder}: no training checkpoint to resume from; a new run begins")
    else:
        with mismatch_as_input_error(recipe.folder):
            checkpoint = upgraded(checkpoint)
            check_resumable(checkpoint, recipe, data, recipe.folder)
    return checkpoint


class _Experiment:
    """Trains and finishes the variants, and saves what is done."""

    def __init__(
        self,
        recipe: Recipe,
        data: dict[str, Any],
        check_data: Callable[[], None],
        variants: list[VariantRun],
        run_log: RunLog,
        fault_tolerance: FaultTolerance,
    ) -> None:
        self._recipe, self._data, self._check_data = recipe, data, check_data
        self._variants, self._run_log, self.fault_tolerance = variants, run_log, fault_tolerance
        self.num_images = {
            "num_train": variants[0].data.loader.num_samples,
            "num_val": variants[0].evaluator.num_samples,
        }
        self.crops = {variant.plan.name: variant.sample_crops() for variant in variants} if is_main() else {}

    def train(self) -> None:
        """Trains all epochs, one epoch of each variant in turn."""
        for epoch in range(max(variant.plan.config.epochs for variant in self._variants)):
            for variant in self._variants:
                if len(variant.state.epochs) == epoch and not variant.is_trained and variant.result is None:
                    self._check_data()
                    self.fault_tolerance.clock = variant.state.clock
                    variant.train_epoch(self.fault_tolerance)
                    self.fault_tolerance.end_epoch()

    def finish(self) -> list[VariantResult | None]:
        """Finishes all variants. Each finished step is saved."""
        unfinished = [variant for variant in self._variants if variant.result is None]
        if unfinished:
            self.fault_tolerance.save()
        for variant in unfinished:
            with self.fault_tolerance.interruptible():
                variant.finish(self.fault_tolerance.save)
            self.fault_tolerance.save()
            self.fault_tolerance.raise_if_preempted()
        wait_for_all()
        return [variant.result for variant in self._variants]

    def state_dict(self) -> dict[str, Any] | None:
        """A training checkpoint; None if the weights are not finite. To be called in all processes.

        Raises:
            InputError: the data has changed, so what was learned since must not be saved.
        """
        self._check_data()
        if not all(variant.has_finite_weights() for variant in self._variants):
            return None  # the next loss ends the run
        variants = {variant.plan.name: variant.state_dict() for variant in self._variants}
        return header(self._recipe, self._data) | {"metrics_bytes": self._run_log.num_bytes, "variants": variants}

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        with mismatch_as_input_error(self._recipe.folder):
            for variant in self._variants:
                variant.load_state_dict(checkpoint["variants"][variant.plan.name])
                if not variant.has_finite_weights():
                    raise ValueError(f"{variant.plan.name}: weights that are not finite")

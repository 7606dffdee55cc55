"""The variants of a recipe on the same data, seeds and epochs, side by side; a run that can be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from fixres.config.recipe import Recipe
from fixres.distributed.process_group import is_main, num_processes, sharded, wait_for_all
from fixres.experiment.report import Report, write_report
from fixres.experiment.resume import check_fits, description
from fixres.experiment.run_folder import ENVIRONMENT, RunLog
from fixres.experiment.variant import VariantRun
from fixres.experiment.variant_end import finish
from fixres.fault_tolerance.lock import locked
from fixres.fault_tolerance.manager import FaultTolerance
from fixres.models.factory import check_name
from fixres.models.precision import choose_device, choose_precision
from fixres.observability.environment import capture
from pipelines.runtime.atomic_files import check_target
from pipelines.spec import InputError, Loader, OpenLoader


def check_place(recipe: Recipe) -> None:
    """Raises what `run_experiment` would raise of device, precision, network and run folder; it needs no data."""
    choose_precision(recipe.precision, choose_device(recipe.device))
    check_name(recipe.model)
    check_target(recipe.folder, folder=True)


def run_experiment(
    recipe: Recipe,
    open_loader: OpenLoader,
    data: dict[str, object],
    check_data: Callable[[], None] = lambda: None,
) -> Report | None:
    """Trains, tests and fixes every variant of `recipe` and writes the report into its run folder.

    The variants take turns epoch by epoch: on a shared machine a slow minute then slows all of them. With `resume:
    auto`
    it goes on from the newest good state in the run folder.

    Args:
        recipe: what to do.
        open_loader: opens "train" or "val" with fields of LoaderConfig.
        data: what the report says of the data: its path, engine, sizes, preparation time; its "fingerprint" must be
            that of the state from which the run goes on.
        check_data: raises InputError if the files of the data are not those that were opened.

    Returns:
        What was written to report.json; None in processes other than the main one.

    Raises:
        Preempted: a signal asked the run to end; its state is saved.
    """
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    environment = capture() | {"precision": precision.name, "device": str(device), "num_processes": num_processes()}
    with ExitStack() as stack:
        stack.enter_context(locked(recipe.folder) if is_main() else nullcontext())
        run = _Run(_for_processes(recipe), data, check_data)
        run.fault_tolerance = fault_tolerance = FaultTolerance(
            recipe.folder, recipe.fault_tolerance, precision, run.state_dict
        )
        stack.enter_context(fault_tolerance)
        state = run.find_state()
        run_log = RunLog(recipe.folder, recipe, environment, None if state is None else state["metrics_bytes"])
        stack.callback(run_log.close)
        run.open(fault_tolerance.watched(sharded(open_loader), lambda: run.is_finishing), precision, run_log, stack)
        crops = {variant.name: variant.sample_crops() for variant in run.variants} if is_main() else {}
        if state is not None:
            run.load_state_dict(state)
        with _saying_how_to_go_on(fault_tolerance):
            run.train()
            results = run.finish()
    if not is_main():
        return None
    data = data | {"num_train": run.variants[0].loader.num_samples, "num_val": run.num_test}
    report = Report(recipe, results, environment, data, crops)
    write_report(report, recipe.folder)
    return report


@contextmanager
def _saying_how_to_go_on(fault_tolerance: FaultTolerance) -> Iterator[None]:
    """Ctrl-C keeps its exit code and gets a line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not fault_tolerance.has_state:
            raise
        what = str(interrupt) or "interrupted"
        raise KeyboardInterrupt(
            f"{what}; the same call with --resume auto goes on from the last saved state"
        ) from interrupt


def _for_processes(recipe: Recipe) -> Recipe:
    """The recipe with the batch size of all processes, if it gives that of each."""
    optim = recipe.optim
    if optim.per_process is None:
        return recipe
    return replace(recipe, optim=replace(optim, batch_size=optim.per_process * num_processes()))


class _Run:
    """The variants, and how far they are."""

    def __init__(self, recipe: Recipe, data: dict[str, Any], check_data: Callable[[], None]) -> None:
        self._recipe, self._data, self._check_data = recipe, data, check_data
        self.variants: list[VariantRun] = []
        self.fault_tolerance: FaultTolerance
        self.is_finishing = False
        self._run_log: RunLog

    def find_state(self) -> dict[str, Any] | None:
        """The state to go on from, if that is wanted and there is one."""
        if self._recipe.resume == "no":
            return None
        state = self.fault_tolerance.newest()
        if state is not None:
            check_fits(state, self._recipe, self._data, self._recipe.folder)
        return state

    def open(self, open_loader: OpenLoader, precision: Any, run_log: RunLog, stack: ExitStack) -> None:
        """Opens the loaders and makes the networks."""
        self._run_log = run_log
        test_loader = self._open_test(open_loader)
        stack.callback(test_loader.close)
        self.num_test = test_loader.num_samples
        for name, config in self._recipe.variants.items():
            variant = VariantRun(name, config, self._recipe, open_loader, test_loader, precision, run_log)
            stack.callback(variant.loader.close)
            self.variants.append(variant)

    def _open_test(self, open_loader: OpenLoader) -> Loader:
        recipe = self._recipe
        resolution, size = recipe.sweep_resolutions()[0], recipe.optim.batch_size
        return open_loader("val", crop=recipe.eval_crop, resolution=resolution, batch_size=size, seed=recipe.seed)

    def train(self) -> None:
        """Every variant's epochs, in turns."""
        for epoch in range(max(variant.config.epochs for variant in self.variants)):
            for variant in self.variants:
                if len(variant.epochs) == epoch < variant.config.epochs and variant.result is None:
                    self._check_data()
                    variant.train_epoch(self.fault_tolerance)
                    variant.check_weights()
                    self.fault_tolerance.end_of_epoch()

    def finish(self) -> list[Any]:
        """The variants' ends; what is done of each is kept."""
        if any(variant.result is None for variant in self.variants):
            self.fault_tolerance.save()
        for variant in self.variants:
            if variant.result is None:
                # What a signal now cuts short is done again from the last state, which is of the stage before.
                self.is_finishing = True
                finish(variant, self.fault_tolerance.save)
                self.is_finishing = False
                self.fault_tolerance.save()
                self.fault_tolerance.raise_if_preempted()
        wait_for_all()
        return [variant.result for variant in self.variants]

    def state_dict(self) -> dict[str, Any] | None:
        """All that is needed to go on; None if it is not worth keeping. To be asked for in all processes.

        Raises:
            InputError: the data was changed, and what was learnt from it since may not be kept.
        """
        self._check_data()
        if not all(variant.has_finite_weights for variant in self.variants):
            return None  # the next loss tells
        variants = {variant.name: variant.state_dict() for variant in self.variants}
        return description(self._recipe, self._data) | {"metrics_bytes": self._run_log.num_bytes, "variants": variants}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        try:
            for variant in self.variants:
                variant.load_state_dict(state["variants"][variant.name])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # torch raises the last for other weights
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{self._recipe.folder}: its states do not fit this program ({reason}); use the versions in "
                f"{ENVIRONMENT}, or --resume no"
            ) from error

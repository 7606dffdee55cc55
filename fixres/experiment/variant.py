"""One variant of a comparison: a network trained by one resolution schedule, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from fixres.config.recipe import OptimConfig
from fixres.distributed.process_group import is_main, num_processes
from fixres.experiment.final_evaluation import add_to_curve, finish
from fixres.experiment.results import TrainingState, VariantResult
from fixres.experiment.run_folder import RunLog
from fixres.experiment.variant_parts import Evaluator, TrainingData, VariantNetwork, VariantOutput, VariantPlan
from fixres.finetuning.preflight import check_finetune
from fixres.models.precision import Precision
from fixres.models.probe import probe_network
from fixres.observability.console import log
from fixres.observability.profiler import StepProfiler
from fixres.pipelines.spec import InputError, Loader, OpenLoader
from fixres.training.progress import Progress
from fixres.training.schedule import scaled_lr, training_lr
from fixres.training.teacher_cache import check_cache
from fixres.training.trainer import Monitor, Trainer, create_trainer


class VariantRun:
    """Trains a variant epoch by epoch. All variants share `eval_loader`. `result` is None before it is finished."""

    def __init__(
        self, plan: VariantPlan, open_loader: OpenLoader, eval_loader: Loader, precision: Precision, run_log: RunLog
    ) -> None:
        self.plan, self.state, self.result = plan, TrainingState(), None
        recipe, config, classes, clock = plan.recipe, plan.config, eval_loader.classes, self.state.clock
        with clock.stage("open"):
            self.network = network = VariantNetwork(plan, len(classes), precision)
            self.trainer: Trainer | None = create_trainer(
                recipe, network.net, network.normalize, precision, classes, network.ema
            )
            self.data = TrainingData(plan, open_loader)
            check_cache(recipe, config, self.data.loader)
            if config.finetune is not None:
                probe = probe_network(network.evaluated, config.test_res)
                check_finetune(network.evaluated, probe, self.data.loader, config.finetune, recipe.optim)
        self.evaluator = Evaluator(plan, network, eval_loader, clock)
        self.output = VariantOutput(plan, run_log, classes, clock)
        self.result: VariantResult | None
        log(f"{plan.name}: {_describe_lr(recipe.optim)}")

    @property
    def is_trained(self) -> bool:
        """Whether all epochs are done."""
        return len(self.state.epochs) == self.plan.config.epochs

    def train_epoch(self, monitor: Monitor | None = None) -> None:
        """Trains the next epoch, or the rest of a resumed one; evaluates if it is time for it."""
        plan, state, epoch = self.plan, self.state, len(self.state.epochs)
        epochs, optim, profiler = plan.config.epochs, plan.recipe.optim, self._profiler(epoch)
        assert self.trainer is not None, "the variant is trained"
        with state.clock.stage("train"):
            self.network.net.train()
            self.data.set_epoch(epoch)
            self.trainer.set_epoch(epoch)
            self.trainer.regularize(*plan.regularization(epoch))
            result = self.trainer.epoch(
                self.data.loader,
                lambda done: training_lr(epoch + done, epochs, optim),
                f"{plan.name}: {plan.resolutions[epoch]} px, epoch {epoch + 1}/{epochs}",
                profiler,
                state.progress,
                monitor,
            )
        if profiler is not None and profiler.summary:
            log(f"{plan.name}: {profiler.summary}")
        state.epochs.append(result)
        state.progress = Progress()
        self.output.write("train", epoch + 1, result)
        self._check_weights()
        every = plan.recipe.eval_every
        if every and (epoch + 1) % every == 0 and not self.is_trained:
            self._evaluate()

    def _profiler(self, epoch: int) -> StepProfiler | None:
        """For the second epoch, or the only one, if the recipe asks for it."""
        num_steps = self.plan.recipe.profile
        if not num_steps or epoch != min(1, self.plan.config.epochs - 1) or not is_main():
            return None
        return StepProfiler(self.output.folder / "trace.json", num_steps, self.network.precision.device)

    def _check_weights(self) -> None:
        if not self.network.has_finite_weights():
            raise InputError(
                f"{self.plan.name}: after epoch {len(self.state.epochs)} its weights or BatchNorm statistics are not "
                "finite; lower optim.lr or lengthen optim.warmup_epochs; --resume auto continues from the last "
                "training checkpoint"
            )

    def _evaluate(self) -> None:
        result, num_epochs = self.evaluator.evaluate(), len(self.state.epochs)
        is_best = all(result.top1 > point.top1 for point in self.state.curve)
        add_to_curve(self.state, self.output, result)
        if is_best:
            self.output.save_weights("best.pt", self.network.evaluated, num_epochs)

    def finish(self, save: Callable[[], None] = lambda: None) -> VariantResult:
        """See `final_evaluation.finish`; the variant cannot be trained afterwards."""
        self.trainer = None  # two trainers of one network would both exchange its gradients between processes
        self.result = finish(self.plan, self.network, self.data, self.evaluator, self.output, self.state, save)
        return self.result

    def sample_crops(self, num: int = 8) -> dict[str, np.ndarray]:
        """The first crops of the run, as the network sees them: uint8 (num, r, r, 3) for "train" and "test"."""
        with self.state.clock.stage("open"):
            return {"train": self.data.sample_crops(num), "test": self.evaluator.sample_crops(num)}

    def has_finite_weights(self) -> bool:
        """Whether weights and statistics are finite in all processes; True for a finished variant."""
        return self.result is not None or self.network.has_finite_weights()

    def state_dict(self) -> dict[str, Any]:
        """The variant's part of a training checkpoint; to be called in all processes."""
        if self.result is not None:
            return {"result": asdict(self.result)}
        return {
            **self.network.state_dict(),
            "stepper": None if self.trainer is None else self.trainer.stepper.state_dict(),
            **self.state.state_dict(),
            "num_bad_samples": self.data.num_bad_samples(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, on any number of processes."""
        if "result" in state:
            self.result = VariantResult.from_dict(state["result"])
            return
        self.network.load_state_dict(state)
        if state["stepper"] is not None:
            assert self.trainer is not None
            self.trainer.stepper.load_state_dict(state["stepper"])
        self.state.load_state_dict(state)
        self.data.resume(len(self.state.epochs), self.state.progress.position, state["num_bad_samples"])


def _describe_lr(optim: OptimConfig) -> str:
    """The learning rate after linear scaling."""
    peak, micro, number = scaled_lr(optim.lr, optim.batch_size), optim.accumulate or 1, num_processes()
    batches = f"{micro} x {optim.micro_batch_size}" if micro > 1 else f"{optim.batch_size}"
    shared = f", {optim.micro_batch_size // number} in each of {number} processes" if number > 1 else ""
    return (
        f"peak learning rate {peak:g}: {optim.lr:g} for 256 images, {batches} in a step{shared} "
        f"(optim.lr x images in a step / 256)"
    )

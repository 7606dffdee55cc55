"""One variant of a comparison: a network trained by one resolution schedule, see also `variant_end`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from fixres.config.recipe import OptimConfig, Recipe, VariantConfig
from fixres.distributed.process_group import all_gather, all_reduce, is_main, num_processes
from fixres.distributed.sync_batchnorm import synchronized
from fixres.evaluation.accuracy import EvalResult, evaluate
from fixres.experiment.results import CurvePoint, Ending, VariantResult, ending, variant_result
from fixres.experiment.run_folder import RunLog
from fixres.finetuning.preflight import check_finetune
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision
from fixres.models.probe import check_takes, probe_network
from fixres.observability.clock import Clock
from fixres.observability.console import log
from fixres.observability.profiler import StepProfiler
from fixres.training.build import create_trainer
from fixres.training.ema import Average
from fixres.training.schedule import resolution_at, scaled_lr, training_lr
from fixres.training.teacher_cache import check_cache
from fixres.training.trainer import EpochResult, Progress, Trainer
from pipelines.spec import Crop, InputError, Loader, OpenLoader


class VariantRun:
    """Trains epoch by epoch, so that several variants can take turns and a slow minute of the machine hits all alike.

    Args:
        name: of the variant.
        config: the variant.
        recipe: what all variants share.
        open_loader: opens the training split.
        test_loader: opened test split, shared by all variants.
        precision: number format and device.
        run_log: the run folder.

    Attributes:
        net: what is trained.
        tested: what is tested, fixed and saved: the network, or the average of its weights.
        epochs: results of the epochs done.
        curve: tests so far.
        ending: what of its end is done.
        result: once the variant is finished.
    """

    def __init__(
        self,
        name: str,
        config: VariantConfig,
        recipe: Recipe,
        open_loader: OpenLoader,
        test_loader: Loader,
        precision: Precision,
        run_log: RunLog,
    ) -> None:
        self.name, self.config, self.recipe, self.run_log = name, config, recipe, run_log
        self.test_loader, self.precision, self._open_loader = test_loader, precision, open_loader
        self.clock = Clock()
        self.resolutions = [resolution_at(epoch, config.resolution) for epoch in range(config.epochs)]
        with self.clock.stage("open"):
            torch.manual_seed(recipe.seed)
            net = create_model(recipe.model, len(test_loader.classes))
            net = synchronized(net, precision.device) if recipe.model.sync_bn else net
            self.net = net.to(precision.device)
            for resolution in sorted({*self.resolutions, *recipe.sweep_resolutions()}):
                check_takes(self.net, resolution)  # now, and not after the training
            self.normalize = Normalize().to(precision.device)
            self._average = None if recipe.optim.ema is None else Average(self.net, recipe.optim.ema)
            self.tested = self.net if self._average is None else self._average.net
            self.trainer: Trainer | None = create_trainer(
                recipe, self.net, self.normalize, precision, test_loader.classes, self._average
            )
            self.loader = self.open_train(recipe.train_crop, self.resolutions[0], recipe.optim.micro_batch_size)
            check_cache(recipe, config, self.loader)
            if config.finetune is not None:
                probe = probe_network(self.tested, config.test_res)
                check_finetune(self.tested, probe, self.loader, config.finetune, recipe.optim)
        log(f"{name}: {_rates(recipe.optim)}")
        self.epochs: list[EpochResult] = []
        self.curve: list[CurvePoint] = []
        self.ending = Ending()
        self.result: VariantResult | None = None
        self._progress, self._num_bad_before = Progress(), 0

    def open_train(
        self, crop: Crop, resolution: int, batch_size: int | None = None, shuffle: bool = True, drop_last: bool = True
    ) -> Loader:
        """A loader of the training split; `batch_size` is of all processes, and the recipe's if None."""
        return self._open_loader(
            "train",
            crop=crop,
            resolution=resolution,
            batch_size=batch_size or self.recipe.optim.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.recipe.seed,
        )

    @property
    def is_trained(self) -> bool:
        """Whether all epochs are done."""
        return len(self.epochs) == self.config.epochs

    @property
    def num_bad_samples(self) -> int:
        """Bad samples replaced in training so far. To be asked for in all processes."""
        return self._num_bad_before + sum(all_gather(self.loader.counters.num_bad_samples))

    @property
    def has_finite_weights(self) -> bool:
        """Whether all weights and statistics are numbers, in all processes. Always so once the variant is finished."""
        if self.result is not None:
            return True
        # A forward pass that overflows in 16 bits spoils BatchNorm's statistics, which no training loss tells.
        values = [value for value in self.net.state_dict().values() if value.is_floating_point()]
        return all(all_gather(bool(torch.stack([value.isfinite().all() for value in values]).all())))

    def check_weights(self) -> None:
        """Raises InputError if a weight or statistic is not finite, which no loss may tell. In all processes."""
        if not self.has_finite_weights:
            raise InputError(
                f"{self.name}: after epoch {len(self.epochs)} its weights or BatchNorm statistics are not finite; "
                "lower optim.lr or lengthen optim.warmup_epochs; --resume auto goes on from the last state"
            )

    def train_epoch(self, watch: Any = None) -> None:
        """Trains the next epoch, or the rest of one, and tests if it is time for it.

        Args:
            watch: a `FaultTolerance`, or None.
        """
        config, optim, epoch = self.config, self.recipe.optim, len(self.epochs)
        assert self.trainer is not None
        with self.clock.stage("train"):
            self.net.train()
            self.loader.set_resolution(self.resolutions[epoch])
            self.loader.set_epoch(epoch)
            self.trainer.set_epoch(epoch)
            profiler = self._profiler(epoch)
            result = self.trainer.epoch(
                self.loader,
                lambda done: training_lr(epoch + done, config.epochs, optim),
                f"{self.name}: {self.resolutions[epoch]} px, epoch {epoch + 1}/{config.epochs}",
                profiler,
                self._progress,
                None if watch is None else _Aside(watch, self.clock),
            )
        if profiler is not None and profiler.summary:
            log(f"{self.name}: {profiler.summary}")
        self.epochs.append(result)
        self._progress = Progress()
        self.run_log.write(self.name, "train", epoch + 1, result)
        every = self.recipe.eval_every
        if every and (epoch + 1) % every == 0 and epoch + 1 < config.epochs:
            self._test(epoch + 1)

    def _profiler(self, epoch: int) -> StepProfiler | None:
        """For the second epoch, or the only one, if the recipe asks for it."""
        if not self.recipe.profile or epoch != min(1, self.config.epochs - 1) or not is_main():
            return None
        return StepProfiler(self.run_log.folder / self.name / "trace.json", self.recipe.profile, self.precision.device)

    def _test(self, epoch: int) -> None:
        with self.clock.stage("evaluate"):
            self.test_loader.set_resolution(self.config.test_res)
            result = evaluate(self.tested, self.normalize, self.test_loader, self.precision, f"{self.name}: test")
        best = max((point.top1 for point in self.curve), default=-1.0)
        self.add_to_curve(epoch, result)
        if result.top1 > best:
            self.save("best.pt", finetuned=False)

    def add_to_curve(self, epoch: int, result: EvalResult) -> None:
        """Notes a test after `epoch` epochs."""
        self.curve.append(CurvePoint(epoch, self.clock.train_seconds, result.top1, self.epochs[-1].loss))
        self.run_log.write(self.name, "test", epoch, result)

    def save(self, name: str, finetuned: bool) -> None:
        """Writes the weights of what is tested into the variant's folder."""
        if not is_main():
            return
        recipe = self.recipe
        info = CheckpointInfo(
            model=recipe.model.name,
            model_kwargs=recipe.model.kwargs,
            classes=self.test_loader.classes,
            train_res=self.resolutions[max(len(self.epochs), 1) - 1],
            test_res=self.config.test_res,
            crop_pct=recipe.eval_crop.crop_pct,
            finetuned=finetuned,
            seed=recipe.seed,
        )
        with self.clock.stage("save"):
            save_checkpoint(self.run_log.folder / self.name / name, self.tested, info)

    def sample_crops(self, num: int = 8) -> dict[str, np.ndarray]:
        """The first crops of the run, as the network sees them: uint8 (num, r, r, 3) for "train" and "test"."""
        self.test_loader.set_resolution(self.config.test_res)
        self.loader.set_resolution(self.resolutions[-1])
        with self.clock.stage("open"):
            batches = {"train": next(iter(self.loader)), "test": next(iter(self.test_loader))}
        self._num_bad_before -= self.loader.counters.num_bad_samples  # looked at, not trained on
        return {name: batch.images[:num].cpu().numpy() for name, batch in batches.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that the variant needs to continue; its result alone once it is finished. Call it in all processes."""
        if self.result is not None:
            return {"result": asdict(self.result)}
        return {
            "net": self.net.state_dict(),
            "stepper": None if self.trainer is None else self.trainer.stepper.state_dict(),  # None once it is tested
            "average": None if self._average is None else self._average.state_dict(),
            "progress": self._progress.state_dict() | _over_processes(self._progress, self.precision),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "curve": [asdict(point) for point in self.curve],
            "ending": asdict(self.ending),
            "clock": self.clock.state_dict(),
            "num_bad_samples": self.num_bad_samples,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave, on any number of processes."""
        if "result" in state:
            self.result = variant_result(state["result"])
            return
        self.net.load_state_dict(state["net"])
        if state["stepper"] is not None:
            assert self.trainer is not None
            self.trainer.stepper.load_state_dict(state["stepper"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.epochs = [EpochResult(**epoch) for epoch in state["epochs"]]
        self.curve = [CurvePoint(**point) for point in state["curve"]]
        self.ending = ending(state.get("ending", asdict(Ending())))
        self.clock.load_state_dict(state["clock"])
        self._num_bad_before += state["num_bad_samples"]
        self._go_on(Progress(**state["progress"]))

    def _go_on(self, progress: Progress) -> None:
        if not is_main():  # sums over all processes go on in one of them
            progress.num_images, progress.loss_sum, progress.num_skipped = 0, 0.0, 0.0
        self._progress = progress
        position = self.loader.state_dict() | {"epoch": len(self.epochs), "position": progress.position}
        self.loader.load_state_dict(position)


class _Aside:
    """A watch whose savings do not count as training."""

    def __init__(self, watch: Any, clock: Clock) -> None:
        self.loss, self._watch, self._clock = watch.loss, watch, clock

    def updated(self) -> float:
        with self._clock.aside("save"):
            return self._watch.updated()


def _over_processes(progress: Progress, precision: Precision) -> dict[str, float]:
    if num_processes() == 1:
        return {}
    sums = [progress.num_images, progress.loss_sum, progress.num_skipped]
    reduced = all_reduce(torch.tensor(sums, dtype=torch.float64, device=precision.device)).tolist()
    return {"num_images": int(reduced[0]), "loss_sum": reduced[1], "num_skipped": reduced[2]}


def _rates(optim: OptimConfig) -> str:
    """What linear scaling made of the learning rate."""
    peak, micro, number = scaled_lr(optim.lr, optim.batch_size), optim.accumulate or 1, num_processes()
    batches = f"{micro} x {optim.micro_batch_size}" if micro > 1 else f"{optim.batch_size}"
    shared = f", {optim.micro_batch_size // number} in each of {number} processes" if number > 1 else ""
    return (
        f"peak learning rate {peak:g}: {optim.lr:g} for 256 images, {batches} in a step{shared} "
        f"(optim.lr x images in a step / 256)"
    )

"""One arm of a comparison: a network trained by one resolution schedule, tested over a sweep, fixed, tested again."""

from __future__ import annotations

import sys
from contextlib import closing

import numpy as np
import torch
from tqdm import tqdm

from fixres.adapt import adapt
from fixres.averaging import Average
from fixres.checkpoint import CheckpointInfo, save_checkpoint
from fixres.clock import Clock
from fixres.config import ArmConfig, FixConfig, OptimConfig, Recipe
from fixres.evaluate import EvalResult, evaluate, sweep
from fixres.finetune import finetune, fix_crop
from fixres.hardware import Precision
from fixres.models import Normalise, create_model
from fixres.profiling import StepProfiler
from fixres.results import ArmResult, CurvePoint, at
from fixres.runlog import RunLog
from fixres.schedule import resolution_at, scaled_lr, training_lr
from fixres.teacher_cache import check_cache
from fixres.train import EpochResult
from fixres.training import create_trainer
from pipelines.spec import Crop, EvalCrop, Loader, OpenLoader


class Arm:
    """Trains epoch by epoch, so that several arms can take turns and a slow minute of the machine hits all alike.

    Args:
        name: a field of ArmsConfig.
        config: the arm.
        recipe: what all arms share.
        open_loader: opens the training split.
        test_loader: opened test split, shared by all arms.
        precision: number format and device.
        log: the run folder.
    """

    def __init__(
        self,
        name: str,
        config: ArmConfig,
        recipe: Recipe,
        open_loader: OpenLoader,
        test_loader: Loader,
        precision: Precision,
        log: RunLog,
    ) -> None:
        self.name, self.config, self.recipe, self.log = name, config, recipe, log
        self._open_loader, self._test_loader, self._precision = open_loader, test_loader, precision
        self.clock = Clock()
        self.resolutions = [resolution_at(epoch, config.resolution) for epoch in range(config.epochs)]
        with self.clock.stage("open"):
            torch.manual_seed(recipe.seed)
            self.net = create_model(recipe.model, len(test_loader.classes)).to(precision.device)
            self.normalise = Normalise().to(precision.device)
            average = None if recipe.optim.ema is None else Average(self.net, recipe.optim.ema)
            # What is tested, fixed and saved.
            self.tested = self.net if average is None else average.net
            classes = test_loader.classes
            self._trainer = create_trainer(recipe, self.net, self.normalise, precision, classes, average)
            self.loader = self._open_train(recipe.train_crop, self.resolutions[0], recipe.optim.micro_batch_size)
            check_cache(recipe, config, self.loader)
        tqdm.write(f"{name}: {_rates(recipe.optim)}", file=sys.stderr)
        self._epochs: list[EpochResult] = []
        self._curve: list[CurvePoint] = []

    def _open_train(
        self, crop: Crop, resolution: int, batch_size: int | None = None, shuffle: bool = True, drop_last: bool = True
    ) -> Loader:
        return self._open_loader(
            "train",
            crop=crop,
            resolution=resolution,
            batch_size=batch_size or self.recipe.optim.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.recipe.seed,
        )

    def train_epoch(self, epoch: int) -> None:
        """Trains one epoch, and tests if it is time for it."""
        config, optim = self.config, self.recipe.optim
        with self.clock.stage("train"):
            self.net.train()
            self.loader.set_resolution(self.resolutions[epoch])
            self.loader.set_epoch(epoch)
            self._trainer.set_epoch(epoch)
            profiler = self._profiler(epoch)
            result = self._trainer.epoch(
                self.loader,
                lambda done: training_lr(epoch + done, config.epochs, optim),
                f"{self.name}: {self.resolutions[epoch]} px, epoch {epoch + 1}/{config.epochs}",
                profiler,
            )
        if profiler is not None and profiler.summary:
            tqdm.write(f"{self.name}: {profiler.summary}")
        self._epochs.append(result)
        self.log.write(self.name, "train", epoch + 1, result)
        every = self.recipe.eval_every
        if every and (epoch + 1) % every == 0 and epoch + 1 < config.epochs:
            self._test(epoch + 1)

    def _profiler(self, epoch: int) -> StepProfiler | None:
        """For the second epoch, or the only one, if the recipe asks for it."""
        if not self.recipe.profile or epoch != min(1, self.config.epochs - 1):
            return None
        return StepProfiler(self.log.folder / self.name / "trace.json", self.recipe.profile, self._precision.device)

    def _test(self, epoch: int) -> None:
        with self.clock.stage("evaluate"):
            self._test_loader.set_resolution(self.config.test_res)
            result = evaluate(self.tested, self.normalise, self._test_loader, self._precision, f"{self.name}: test")
        self._add_to_curve(epoch, result)

    def _add_to_curve(self, epoch: int, result: EvalResult) -> None:
        self._curve.append(CurvePoint(epoch, self.clock.train_seconds, result.top1, self._epochs[-1].loss))
        self.log.write(self.name, "test", epoch, result)

    def finish(self) -> ArmResult:
        """Tests over the sweep, fixes, tests again, saves the weights before and after the fix."""
        before = self._sweep("after training")
        self._add_to_curve(self.config.epochs, at(before, self.config.test_res))
        self._save("trained.pt", fixed=False)
        self.loader.close()
        fix_epochs, after = [], []
        if self.config.fix is not None:
            fix_epochs = self._fix(self.config.fix)
            after = self._sweep("after the fix")
            self.log.write(self.name, "test", self.config.epochs + len(fix_epochs), at(after, self.config.test_res))
            self._save("fixed.pt", fixed=True)
        return self._result(before, after, fix_epochs)

    def _sweep(self, when: str) -> list[EvalResult]:
        with self.clock.stage("evaluate"):
            resolutions = self.recipe.sweep_resolutions()
            title = f"{self.name}: test {when}"
            return sweep(self.tested, self.normalise, self._test_loader, self._precision, resolutions, title)

    def _fix(self, config: FixConfig) -> list[EpochResult]:
        recipe, test_res, size = self.recipe, self.config.test_res, config.batch_size
        crop = fix_crop(config, recipe.eval_crop.crop_pct, recipe.train_crop)
        with self.clock.stage("fix"):
            if config.adapt != "none":
                self._adapt(config)
            with closing(self._open_train(crop, test_res, size)) as loader:
                results = finetune(
                    self.tested,
                    self.normalise,
                    loader,
                    config,
                    recipe.optim,
                    self._precision,
                    recipe.seed,
                    lambda: self._open_train(crop, test_res, size, shuffle=False, drop_last=False),
                )
        for epoch, result in enumerate(results):
            self.log.write(self.name, "fix", self.config.epochs + epoch + 1, result)
        return results

    def _adapt(self, config: FixConfig) -> None:
        crop = EvalCrop(self.recipe.eval_crop.crop_pct)
        with closing(self._open_train(crop, self.config.test_res, config.batch_size)) as loader:
            line = adapt(self.tested, self.normalise, loader, config, self._precision, self.resolutions[-1])
        tqdm.write(f"{self.name}: {line}", file=sys.stderr)

    def _save(self, name: str, fixed: bool) -> None:
        recipe = self.recipe
        info = CheckpointInfo(
            model=recipe.model.name,
            model_kwargs=recipe.model.kwargs,
            classes=self._test_loader.classes,
            train_res=self.resolutions[-1],
            test_res=self.config.test_res,
            crop_pct=recipe.eval_crop.crop_pct,
            fixed=fixed,
            seed=recipe.seed,
        )
        with self.clock.stage("save"):
            save_checkpoint(self.log.folder / self.name / name, self.tested, info)

    def sample_crops(self, num: int = 8) -> dict[str, np.ndarray]:
        """The first crops of the run, as the network sees them: uint8 (num, r, r, 3) for "train" and "test"."""
        self._test_loader.set_resolution(self.config.test_res)
        self.loader.set_resolution(self.resolutions[-1])
        with self.clock.stage("open"):
            batches = {"train": next(iter(self.loader)), "test": next(iter(self._test_loader))}
        return {name: batch.images[:num].cpu().numpy() for name, batch in batches.items()}

    def _result(self, before: list[EvalResult], after: list[EvalResult], fix_epochs: list[EpochResult]) -> ArmResult:
        test_res, seconds = self.config.test_res, self.clock.seconds
        final = at(after or before, test_res)
        num_images = sum(epoch.num_images for epoch in self._epochs)
        return ArmResult(
            name=self.name,
            train_res=self.resolutions[-1],
            train_res_by_epoch=self.resolutions,
            test_res=test_res,
            epochs=self.config.epochs,
            top1_before_fix=at(before, test_res).top1,
            top1=final.top1,
            top5=final.top5,
            class_mean_top1=final.class_mean_top1,
            train_seconds=seconds["train"],
            fix_seconds=seconds["fix"],
            evaluate_seconds=seconds["evaluate"],
            program_seconds=self.clock.program_seconds,
            paused_seconds=self.clock.paused_seconds,
            images_per_second=num_images / seconds["train"],
            data_wait_share=sum(epoch.wait_seconds for epoch in self._epochs) / seconds["train"],
            num_bad_samples=self.loader.counters.num_bad_samples,
            sweep_before=before,
            sweep_after=after,
            curve=self._curve,
            fix_epochs=fix_epochs,
        )


def _rates(optim: OptimConfig) -> str:
    """What linear scaling made of the learning rate."""
    peak, micro = scaled_lr(optim.lr, optim.batch_size), optim.accumulate or 1
    batches = f"{micro} x {optim.micro_batch_size}" if micro > 1 else f"{optim.batch_size}"
    return f"peak learning rate {peak:g}: {optim.lr:g} for 256 images, {batches} in a step"

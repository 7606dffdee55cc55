"""The parts of a variant's run, each with one duty: plan, network, training data, evaluation, output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from fixres.config.augment import AugmentConfig, between
from fixres.config.recipe import Recipe, VariantConfig
from fixres.distributed.process_group import all_gather, is_main
from fixres.distributed.sync_batchnorm import synchronized
from fixres.evaluation.accuracy import EvalResult, evaluate, sweep
from fixres.experiment.run_folder import RunLog
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision
from fixres.models.predictor import Predictor
from fixres.models.probe import check_takes, set_input_size, size_arguments
from fixres.observability.clock import Clock
from fixres.pipelines.spec import Crop, Loader, OpenLoader
from fixres.training.optimizer import WeightEMA
from fixres.training.regularization import share_of
from fixres.training.schedule import resolution_at


@dataclass(frozen=True)
class VariantPlan:
    """A variant's name, and the recipe that has its schedule."""

    name: str
    recipe: Recipe

    @property
    def config(self) -> VariantConfig:
        """The variant's settings."""
        return self.recipe.variants[self.name]

    @cached_property
    def resolutions(self) -> list[int]:
        """The training resolution of each epoch, in pixels."""
        return [resolution_at(epoch, self.config.resolution) for epoch in range(self.config.epochs)]

    def regularization(self, epoch: int) -> tuple[AugmentConfig | None, float | None]:
        """The augmentation of an epoch, and its dropout before the classifier; None: that of the recipe."""
        grows = self.config.regularization
        if grows is None:
            return None, None
        share = share_of(self.resolutions[epoch], self.resolutions)
        drop_rate = None if grows.drop_rate is None else between(grows.drop_rate, share)
        return grows.augment_at(share, self.recipe.augment or AugmentConfig()), drop_rate


class VariantNetwork:
    """The network, its input normalization, and the moving average of its weights if the recipe has one.

    Attributes:
        net: what is trained.
        evaluated: what is evaluated, fine-tuned and saved: the moving average, or `net` without one.
    """

    def __init__(self, plan: VariantPlan, num_classes: int, precision: Precision) -> None:
        recipe, self.precision = plan.recipe, precision
        torch.manual_seed(recipe.seed)
        net = create_model(recipe.model, num_classes)
        net = synchronized(net, precision.device) if recipe.model.sync_bn else net
        self.net = net.to(precision.device)
        for resolution in sorted({*plan.resolutions, *recipe.sweep_resolutions()}):
            check_takes(self.net, resolution)  # before the training, not after it
        self.normalize = Normalize().to(precision.device)
        self.ema = None if recipe.optim.ema is None else WeightEMA(self.net, recipe.optim.ema)
        self.evaluated: nn.Module = self.net if self.ema is None else self.ema.net

    @property
    def predictor(self) -> Predictor:
        """The evaluated network, for the loaders' batches."""
        return Predictor(self.evaluated, self.normalize, self.precision)

    def has_finite_weights(self) -> bool:
        """Whether all weights and statistics are finite, in all processes.

        A forward pass that overflows in 16 bits can spoil BatchNorm's statistics without changing any training loss.
        """
        values = [value for value in self.net.state_dict().values() if value.is_floating_point()]
        return all(all_gather(bool(torch.stack([value.isfinite().all() for value in values]).all())))

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics and their moving average, and the size to which fine-tuning has set the network."""
        average = None if self.ema is None else self.ema.state_dict()
        return {"net": self.net.state_dict(), "average": average, "input_size": size_arguments(self.evaluated)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        if (size := state.get("input_size", {}).get("img_size")) is not None:
            set_input_size(self.evaluated, size, always=True)
        self.net.load_state_dict(state["net"])
        if self.ema is not None:
            self.ema.load_state_dict(state["average"])


class TrainingData:
    """The training split: the loader for training, and further loaders for fine-tuning."""

    def __init__(self, plan: VariantPlan, open_loader: OpenLoader) -> None:
        self._plan, self._open_loader = plan, open_loader
        recipe = plan.recipe
        repeats = {} if recipe.augment is None else {"aug_repeats": recipe.augment.aug_repeats}
        self.loader = self.open(recipe.train_crop, plan.resolutions[0], recipe.optim.micro_batch_size, **repeats)
        self._num_bad_before = 0

    def open(
        self,
        crop: Crop,
        resolution: int,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = True,
        aug_repeats: int = 1,
    ) -> Loader:
        """A loader of the training split; `batch_size` is over all processes."""
        return self._open_loader("train", crop=crop, resolution=resolution, batch_size=batch_size, shuffle=shuffle,
                                 drop_last=drop_last, seed=self._plan.recipe.seed, aug_repeats=aug_repeats)  # fmt: skip

    def set_epoch(self, epoch: int) -> None:
        """Selects an epoch's order, crops and resolution."""
        self.loader.set_resolution(self._plan.resolutions[epoch])
        self.loader.set_epoch(epoch)

    def sample_crops(self, num: int) -> np.ndarray:
        """The first crops of the run at the last resolution, uint8 (num, r, r, 3)."""
        self.loader.set_resolution(self._plan.resolutions[-1])
        images = next(iter(self.loader)).images[:num].cpu().numpy()
        self._num_bad_before -= self.loader.counters.num_bad_samples  # not trained on
        return images

    def num_bad_samples(self) -> int:
        """Bad samples replaced in training so far; to be called in all processes."""
        return self._num_bad_before + sum(all_gather(self.loader.counters.num_bad_samples))

    def resume(self, epoch: int, position: int, num_bad_samples: int) -> None:
        """Continues after `position` images of an epoch, over all processes."""
        self._num_bad_before += num_bad_samples
        self.loader.load_state_dict(self.loader.state_dict() | {"epoch": epoch, "position": position})


class Evaluator:
    """Evaluates a variant's network on the test split, whose loader all variants share."""

    def __init__(self, plan: VariantPlan, network: VariantNetwork, loader: Loader, clock: Clock) -> None:
        self._plan, self._network, self._loader, self._clock = plan, network, loader, clock

    @property
    def num_samples(self) -> int:
        """Images of the test split."""
        return self._loader.num_samples

    def evaluate(self) -> EvalResult:
        """Evaluates at the variant's test resolution."""
        title = f"{self._plan.name}: evaluation"
        with self._clock.stage("evaluate"):
            self._loader.set_resolution(self._plan.config.test_res)
            return evaluate(self._network.predictor, self._loader, title)

    def sweep(self, when: str) -> list[EvalResult]:
        """Evaluates at each resolution of the sweep."""
        resolutions = self._plan.recipe.sweep_resolutions()
        title = f"{self._plan.name}: evaluation {when}"
        with self._clock.stage("evaluate"):
            return sweep(self._network.predictor, self._loader, resolutions, title)

    def sample_crops(self, num: int) -> np.ndarray:
        """The first crops at the test resolution, uint8 (num, r, r, 3)."""
        self._loader.set_resolution(self._plan.config.test_res)
        return next(iter(self._loader)).images[:num].cpu().numpy()


class VariantOutput:
    """Writes a variant's metrics, and its weights into the folder of its name."""

    def __init__(self, plan: VariantPlan, run_log: RunLog, classes: tuple[str, ...], clock: Clock) -> None:
        self._plan, self._run_log, self._classes, self._clock = plan, run_log, classes, clock
        self.folder = run_log.folder / plan.name

    def write(self, kind: str, step: float, result: Any) -> None:
        """Writes one line of metrics; see `RunLog.write`."""
        self._run_log.write(self._plan.name, kind, step, result)

    def save_weights(self, file: str, net: nn.Module, num_epochs: int, finetuned: bool = False) -> None:
        """Writes a network's weights after `num_epochs` epochs, in the main process."""
        if not is_main():
            return
        plan = self._plan
        info = CheckpointInfo(
            model=plan.recipe.model.name,
            model_kwargs=plan.recipe.model.kwargs,
            classes=self._classes,
            train_res=plan.resolutions[num_epochs - 1],
            test_res=plan.config.test_res,
            crop_pct=plan.recipe.eval_crop.crop_pct,
            interpolation=plan.recipe.eval_crop.interpolation,
            finetuned=finetuned,
            seed=plan.recipe.seed,
            data=plan.recipe.data.stored,
        )
        with self._clock.stage("save"):
            save_checkpoint(self.folder / file, net, info)

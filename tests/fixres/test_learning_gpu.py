"""The training loop in the number formats of GPUs, compiled and with all that is done on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixres.augment.batch_transform import BatchTransform
from fixres.config.augment import AugmentConfig
from fixres.config.recipe import OptimConfig
from fixres.evaluation.accuracy import evaluate
from fixres.fault_tolerance.checkpoints import CheckpointFiles
from fixres.fault_tolerance.loss_guard import LossGuard
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision
from fixres.models.predictor import Predictor
from fixres.observability.profiler import StepProfiler
from fixres.pipelines.spec import Loader, TrainCrop
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, WeightEMA, create_optimizer
from fixres.training.trainer import Trainer
from tests.fixres.conftest import TINY

OpenCoded = Callable[..., Loader]
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
FORMATS = [
    ("cpu", "fp32", "no"),  # tests the test
    pytest.param("cuda", "bf16", "yes", marks=GPU),
    pytest.param("cuda", "fp16", "no", marks=GPU),
    pytest.param("cuda", "fp32", "no", marks=GPU),
]


class Guarded:
    """A monitor that checks only losses."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.guard = LossGuard(folder, device)

    def check_loss(self, loss: torch.Tensor, batch: object, title: str, step: int) -> None:
        self.guard.add(loss, batch.indices, title, step)  # type: ignore[attr-defined]

    def after_update(self) -> float:
        return 0.0


@pytest.mark.parametrize(("device", "precision", "compile"), FORMATS)
def test_every_format_learns_the_same_and_resumes_from_its_checkpoint(
    device: str, precision: str, compile: str, open_coded: OpenCoded, tmp_path: Path
) -> None:
    def trained(place: Precision, compile: str) -> tuple[list[float], Trainer, WeightEMA]:
        torch.manual_seed(3)
        net = create_model(TINY, 2).to(place.device).train()
        ema = WeightEMA(net, 0.9)
        stepper = Stepper(create_optimizer(net, OptimConfig()), place, 1, ema)
        transform = BatchTransform(AugmentConfig(color=0.2, pca=0.1, mixup=0.2), 2, 0)
        trainer = Trainer(net, Normalize().to(place.device), stepper, CrossEntropy(0.1), compile, transform)
        loader, losses = open_coded(crop=TrainCrop(), shuffle=True, drop_last=True, batch_size=4), []
        profiler = StepProfiler(tmp_path / f"{place.name}.json", 2, place.device)
        monitor = Guarded(tmp_path, place.device)
        for epoch, resolution in enumerate((32, 48)):
            loader.set_epoch(epoch)
            loader.set_resolution(resolution)
            trainer.set_epoch(epoch)
            losses.append(trainer.epoch(loader, lambda _: 0.02, "train", profiler, monitor=monitor).loss)
        monitor.guard.drain()
        assert (", the GPU busy" in profiler.summary) == (place.device.type == "cuda")
        return losses, trainer, ema

    place = Precision(precision, torch.device(device))
    losses, trainer, ema = trained(place, compile)
    plain, *_ = trained(Precision("fp32", torch.device("cpu")), "no")
    assert losses == pytest.approx(plain, rel=0.1)
    for net in (trainer.net, ema.net):
        result = evaluate(Predictor(net, trainer.normalize, place), open_coded())
        assert result.num_images == 24 and 0 <= result.top1 <= 1
    content = {"net": trainer.net.state_dict(), "stepper": trainer.stepper.state_dict()}
    CheckpointFiles(tmp_path / "states").write(1, content)
    step, state, _ = CheckpointFiles(tmp_path / "states").newest()
    trainer.net.load_state_dict(state["net"])
    trainer.stepper.load_state_dict(state["stepper"])
    loader = open_coded(crop=TrainCrop(), shuffle=True, drop_last=True)
    trainer.net.train()
    assert step == 1 and trainer.epoch(loader, lambda _: 0.02, "again").loss < 2

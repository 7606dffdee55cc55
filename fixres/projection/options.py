"""The settings of a projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fixres.pipelines.spec import InputError, check_resolution

_CORES_PER_DEVICE = 12


@dataclass(frozen=True)
class EstimateOptions:
    """What will training small save? Projects hours from measured or given speeds; the output says which."""

    gpus: int = 1
    """Number of GPUs, or of machines with device cpu."""
    device: Literal["cuda", "cpu"] = "cuda"
    """What trains: GPUs, or with "cpu" the CPUs of whole machines."""
    cores: int | None = None
    """Loader cores in all, besides any that train; 12 for each device if null."""
    num_images: int = 1281167
    """Size of the training set."""
    model: str = "resnet50"
    """The network's name in timm, and in the record of step speeds."""
    large: dict[int, int] = field(default_factory=lambda: {224: 16})
    """The usual training: epochs by resolution in pixels, as 224:16."""
    small: dict[int, int] = field(default_factory=lambda: {128: 12, 160: 4})
    """The fast training: epochs by resolution in pixels, as 128:12,160:4."""
    test_res: int = 224
    """Resolution in pixels for which the fast training is fine-tuned."""
    finetune_epochs: int = 1
    """Epochs of that fine-tuning; 0 for none."""
    step_speed: dict[int, float] = field(default_factory=dict)
    """Training speed of one device: images/s by resolution in pixels, as 128:2500,160:1700,224:900. Without it and
    without step_record the speed is measured on this machine's GPU."""
    step_record: Path | None = None
    """A record of benchmarks.training.train_step that was made on such a device."""
    loader_record: Path | None = None
    """A record of benchmarks.throughput with engines dali and roc; the package's own if null."""
    json: Path | None = None
    """File for the projection."""

    def __post_init__(self) -> None:
        for name in ("gpus", "cores", "num_images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1")
        if self.finetune_epochs < 0:
            raise InputError(f"finetune_epochs={self.finetune_epochs} must not be negative")
        for name in ("large", "small"):
            _check_schedule(name, getattr(self, name))
        check_resolution(self.test_res)
        for side, speed in self.step_speed.items():
            check_resolution(side)
            if not 0 < speed < float("inf"):  # a NaN fails
                raise InputError(f"step_speed: {speed:g} images/s at {side} px must be a number above 0")
        if self.step_speed and self.step_record:
            raise InputError(f"give step_speed or step_record={self.step_record}, not both")

    @property
    def num_cores(self) -> int:
        """Loader cores in all."""
        return self.cores or _CORES_PER_DEVICE * self.gpus

    @property
    def resolutions(self) -> list[int]:
        """All resolutions of the training and the fine-tuning, rising."""
        return sorted({*self.large, *self.small, *([self.test_res] if self.finetune_epochs else [])})

    def devices(self, number: int) -> str:
        """That many devices in words: "1 GPU", "8 CPU machines"."""
        one = "GPU" if self.device == "cuda" else "CPU machine"
        return f"{number} {one}{'' if number == 1 else 's'}"


def _check_schedule(name: str, schedule: Mapping[int, int]) -> None:
    if not schedule:
        raise InputError(f"{name} is empty; give resolution:epochs, such as 128:12,160:4")
    for side, epochs in schedule.items():
        check_resolution(side)
        if epochs < 1:
            raise InputError(f"{name}: {epochs} epochs at {side} px; use at least 1")

"""What can be done with a finished checkpoint: test it over resolutions, look inside; `fix_job` fixes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from fixres.activations import ActivationStatistics, activation_statistics
from fixres.checkpoint import CheckpointInfo, load_checkpoint
from fixres.evaluate import EvalResult, sweep
from fixres.hardware import Precision, choose_device, choose_precision
from fixres.models import Normalise
from pipelines.spec import DataConfig, EvalCrop, InputError, Loader, OpenLoader, check_resolution


@dataclass(frozen=True)
class EvaluateJob:
    """Tests a checkpoint with the transform that it carries."""

    checkpoint: Path
    """A .pt file written by this project."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    test_res: list[int] = field(default_factory=list)
    """Test resolutions in pixels; the checkpoint's own if none is given."""
    batch_size: int = 64
    """Images per step."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: str = "auto"
    """Autocast type: auto, fp32, bf16 or fp16."""

    def __post_init__(self) -> None:
        for resolution in self.test_res:
            check_resolution(resolution)


@dataclass(frozen=True)
class ActivationsJob:
    """Measures a checkpoint's pooled activations over test resolutions (arXiv 1906.06423, section 3.2)."""

    checkpoint: Path
    """A .pt file written by this project."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    test_res: list[int] = field(default_factory=list)
    """Test resolutions in pixels; the checkpoint's training and test resolutions if none is given."""
    num_images: int = 1000
    """Test images to look at, chosen by chance, the same ones at each resolution."""
    plot: Path | None = None
    """PNG file to make, with the distributions; none if null."""
    batch_size: int = 64
    """Images per step."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: str = "auto"
    """Autocast type: auto, fp32, bf16 or fp16."""

    def __post_init__(self) -> None:
        for resolution in self.test_res:
            check_resolution(resolution)
        if self.num_images < 1:
            raise InputError(f"num_images={self.num_images} must be at least 1")
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise InputError(f"plot={self.plot} must be a .png file")


def evaluate_checkpoint(job: EvaluateJob, open_loader: OpenLoader) -> list[EvalResult]:
    """Tests the checkpoint on the test split at each of the job's resolutions."""
    net, info, normalise, precision = _load(job.checkpoint, job.device, job.precision)
    resolutions = job.test_res or [info.test_res]
    loader = _open_test(open_loader, info, resolutions[0], job.batch_size)
    try:
        return sweep(net, normalise, loader, precision, resolutions, "test")
    finally:
        loader.close()


def checkpoint_activations(
    job: ActivationsJob, open_loader: OpenLoader
) -> tuple[CheckpointInfo, list[ActivationStatistics]]:
    """The checkpoint's description and the statistics at each of the job's resolutions, rising."""
    net, info, normalise, precision = _load(job.checkpoint, job.device, job.precision)
    resolutions = sorted(set(job.test_res or [info.train_res, info.test_res]))
    # Shuffled, because the stored order is by class.
    loader = _open_test(open_loader, info, resolutions[0], job.batch_size, shuffle=True)
    try:
        statistics = activation_statistics(
            net, normalise, loader, precision, resolutions, info.train_res, job.num_images
        )
    finally:
        loader.close()
    return info, statistics


def _load(path: Path, device_name: str, precision_name: str) -> tuple[nn.Module, CheckpointInfo, Normalise, Precision]:
    device = choose_device(device_name)
    net, info = load_checkpoint(path)
    return net.to(device), info, Normalise(info.mean, info.std).to(device), choose_precision(precision_name, device)


def _open_test(
    open_loader: OpenLoader, info: CheckpointInfo, resolution: int, batch_size: int, shuffle: bool = False
) -> Loader:
    crop = EvalCrop(info.crop_pct)
    loader = open_loader("val", crop=crop, resolution=resolution, batch_size=batch_size, shuffle=shuffle)
    if loader.classes != info.classes:
        loader.close()
        raise InputError(
            f"the checkpoint knows {len(info.classes)} classes ({', '.join(info.classes[:3])}, ...), the data has "
            f"{len(loader.classes)} ({', '.join(loader.classes[:3])}, ...); test it on the classes it was trained on"
        )
    return loader

"""What can be done with a finished checkpoint beside testing it (`evaluation`): fix it, look inside."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from fixres.activations import ActivationStatistics, activation_statistics
from fixres.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fixres.config import FixConfig, OptimConfig
from fixres.evaluate import EvalResult, sweep
from fixres.finetune import finetune
from fixres.hardware import Precision, choose_device, choose_precision
from fixres.models import Normalise
from pipelines.spec import DataConfig, EvalCrop, InputError, Loader, OpenLoader, check_resolution


@dataclass(frozen=True)
class FixJob:
    """Fine-tunes a checkpoint's last layers for a test resolution (arXiv 1906.06423, section 4)."""

    checkpoint: Path
    """A .pt file written by this project."""
    test_res: int
    """Resolution in pixels to fix for."""
    output: Path | None = None
    """Where the fixed checkpoint goes; CHECKPOINT with _fixRES before its ending if null."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    fix: FixConfig = field(default_factory=FixConfig)
    """Epochs, learning rate, layers."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(batch_size=64))
    """Batch size, momentum, weight decay and label smoothing; its learning rate is not used."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: str = "auto"
    """Autocast type: auto, fp32, bf16 or fp16."""

    def __post_init__(self) -> None:
        check_resolution(self.test_res)
        if self.target.exists():
            raise InputError(f"{self.target} exists; choose another --output")

    @property
    def target(self) -> Path:
        """The file that the fixed weights are written to."""
        return self.output or self.checkpoint.with_stem(f"{self.checkpoint.stem}_fix{self.test_res}")


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


def fix_checkpoint(job: FixJob, open_loader: OpenLoader) -> tuple[EvalResult, EvalResult]:
    """Fixes the checkpoint for `job.test_res`, writes it, and returns the test before and after."""
    net, info, normalise, precision = _load(job.checkpoint, job.device, job.precision)
    test_loader = _open_test(open_loader, info, job.test_res, job.optim.batch_size)
    try:
        before = sweep(net, normalise, test_loader, precision, [job.test_res], "before the fix")[0]
        crop = EvalCrop(info.crop_pct, job.fix.hflip)
        train_loader = open_loader(
            "train", crop=crop, resolution=job.test_res, batch_size=job.optim.batch_size, shuffle=True, drop_last=True
        )
        try:
            finetune(net, normalise, train_loader, job.fix, job.optim, precision)
        finally:
            train_loader.close()
        after = sweep(net, normalise, test_loader, precision, [job.test_res], "after the fix")[0]
    finally:
        test_loader.close()
    save_checkpoint(job.target, net, replace(info, test_res=job.test_res, fixed=True))
    return before, after


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

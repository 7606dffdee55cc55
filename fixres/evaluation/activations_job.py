"""The activations of a finished network over test resolutions."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fixres.evaluation.activations import ActivationStatistics, activation_statistics
from fixres.models.checkpoint import CheckpointInfo
from fixres.models.precision import choose_device, choose_precision
from fixres.models.pretrained import NetworkChoice
from fixres.models.probe import check_takes
from pipelines.runtime.atomic_files import check_target
from pipelines.spec import DataConfig, EvalCrop, InputError, OpenLoader, check_resolution


@dataclass(frozen=True)
class ActivationsJob(NetworkChoice):
    """Measures a network's pooled activations over test resolutions (arXiv 1906.06423, section 3.2)."""

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
        super().__post_init__()
        for resolution in self.test_res:
            check_resolution(resolution)
        if self.num_images < 1:
            raise InputError(f"num_images={self.num_images} must be at least 1")
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise InputError(f"plot={self.plot} must be a .png file")
        if self.plot is not None:
            check_target(self.plot)


def network_activations(
    job: ActivationsJob, open_loader: OpenLoader, classes: tuple[str, ...]
) -> tuple[CheckpointInfo, list[ActivationStatistics]]:
    """The network's description and the statistics at each of the job's resolutions, rising.

    Args:
        job: what to do.
        open_loader: opens "val" with fields of LoaderConfig.
        classes: class names of the data in label order.
    """
    net, info, normalize = job.open(classes)
    device = choose_device(job.device)
    resolutions = sorted(set(job.test_res or [info.train_res, info.test_res]))
    for resolution in {info.train_res, *resolutions}:
        check_takes(net, resolution)
    # Shuffled, because the stored order is by class.
    settings = {"resolution": resolutions[0], "batch_size": job.batch_size, "shuffle": True}
    with closing(open_loader("val", crop=EvalCrop(info.crop_pct), **settings)) as loader:
        statistics = activation_statistics(
            net.to(device),
            normalize.to(device),
            loader,
            choose_precision(job.precision, device),
            resolutions,
            info.train_res,
            job.num_images,
        )
    return info, statistics

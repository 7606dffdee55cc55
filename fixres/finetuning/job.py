"""A network fixed for one or several test resolutions, with sweeps before and after and a report."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn

from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.distributed.process_group import is_main, sharded
from fixres.evaluation.accuracy import EvalResult, sweep
from fixres.finetuning.loop import FinetuneContext, finetune
from fixres.finetuning.preflight import check_finetune
from fixres.finetuning.report import Finetuned, FinetuneReport, write_finetune_report
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.models.pretrained import NetworkChoice
from fixres.models.probe import NetworkProbe, check_takes, probe_network, stride_of
from fixres.observability.console import log
from fixres.observability.environment import capture
from fixres.resolution.advice import advise, explanation
from pipelines.runtime.atomic_files import check_target
from pipelines.spec import DataConfig, EvalCrop, InputError, OpenLoader, TrainCrop, check_resolution


@dataclass(frozen=True)
class FinetuneJob(NetworkChoice):
    """Fine-tunes layers of a network for test resolutions (arXiv 1906.06423, section 4). See docs/fixres.md."""

    new_classifier: bool = False
    """Begin with a classifier of random weights if the network's is for another number of classes."""
    test_res: int | list[int] | Literal["auto"] = field(default_factory=list)
    """Resolutions in pixels to fix for, each from the same weights; auto: those at which objects look as large as in
    training."""
    train_res: int | None = None
    """Training resolution in pixels; the checkpoint's own if null."""
    output: Path | None = None
    """Folder of the fixed checkpoints and the report, or a .pt file if one resolution is asked for; beside the
    checkpoint if null."""
    sweep: list[int] = field(default_factory=list)
    """Further test resolutions at which to test before and after each fix; train_res and test_res always are."""
    train_crop: TrainCrop = field(default_factory=TrainCrop)
    """RandomResizedCrop of the training, for auto and for augmentation train."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What learns, how long and on what."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(batch_size=64))
    """Batch size, momentum, weight decay and label smoothing; its learning rate is not used."""
    seed: int = 0
    """Seeds order, crops, flips and jitter."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: str = "auto"
    """Autocast type: auto, fp32, bf16 or fp16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for resolution in (*self.wanted, *self.sweep, *([self.train_res] if self.train_res is not None else [])):
            check_resolution(resolution)
        if self.test_res != "auto" and not self.wanted:
            raise InputError("test_res is empty; give resolutions such as 288,320, or auto")
        if self.output is not None and self.output.suffix == ".pt" and len(self.wanted) != 1:
            raise InputError(f"output={self.output} is one file; for several resolutions give a folder")
        for name in ("ema", "accumulate", "steps"):
            if getattr(self.optim, name) is not None:
                raise InputError(
                    f"optim.{name} is for training; a fix has its own schedule (--finetune.schedule), omit it"
                )
        if self.optim.per_process is not None:
            raise InputError(
                "optim.per_process is for training; give a fix the images of all processes, optim.batch_size"
            )
        self.check_free(self.wanted)

    @property
    def wanted(self) -> list[int]:
        """The resolutions that the job names, rising; none if they are still to be found."""
        if self.test_res == "auto":
            return []
        return [self.test_res] if isinstance(self.test_res, int) else sorted(set(self.test_res))

    def target(self, test_res: int) -> Path:
        """The file that the weights fixed for `test_res` are written to."""
        if self.output is not None and self.output.suffix == ".pt":
            return self.output
        name = f"{self._stem}_fix{test_res}.pt"
        return (self._folder if self.output is None else self.output) / name

    @property
    def _stem(self) -> str:
        path = Path(self.weights)
        return path.stem if path.is_file() else path.name

    @property
    def _folder(self) -> Path:
        """Of the weights; the working folder for those that only have a name."""
        path = Path(self.weights)
        return path.parent if path.is_file() else Path()

    def report(self, resolutions: list[int]) -> Path:
        """The report of fixes for `resolutions`, without its ending."""
        name = f"{self._stem}_fix{'-'.join(map(str, resolutions))}_report"
        return self.target(resolutions[0]).with_name(name)

    def check_free(self, resolutions: list[int]) -> None:
        """Raises InputError if a fixed checkpoint or the report would overwrite a file, or has no place."""
        if self.output is not None:
            check_target(self.output, folder=self.output.suffix != ".pt")
        paths = [self.target(resolution) for resolution in resolutions]
        if resolutions:
            report = self.report(resolutions)
            paths += [report.with_name(f"{report.name}.json"), report.with_name(f"{report.name}.md")]
        for path in paths:
            if path.exists():
                raise InputError(f"{path} exists; choose another --output")


def finetune_network(
    job: FinetuneJob,
    open_loader: OpenLoader,
    classes: tuple[str, ...],
    image_sizes: Callable[[], np.ndarray] | None = None,
) -> FinetuneReport:
    """Tests, fixes for each resolution, tests again, and writes checkpoints and report (the main process does).

    Args:
        job: what to do.
        open_loader: opens "train" or "val" with fields of LoaderConfig.
        classes: class names of the data in label order.
        image_sizes: gives int (N, 2), heights and widths of training images, for test_res auto.
    """
    net, info, normalize, precision = _load(job, classes)
    resolutions = job.wanted or _advised(job, info, net, image_sizes)
    job.check_free(resolutions)
    probes = [_probe(net, resolution) for resolution in resolutions]
    job.report(resolutions).parent.mkdir(parents=True, exist_ok=True)
    open_loader, eval_crop = sharded(open_loader), EvalCrop(info.crop_pct)
    open_train = partial(open_loader, "train", seed=job.seed)
    context = FinetuneContext(
        net, normalize, precision, open_train, eval_crop, job.train_crop, info.train_res, job.optim, job.seed
    )
    original = copy.deepcopy(net.state_dict())
    settings = {"crop": eval_crop, "resolution": resolutions[0], "batch_size": job.optim.batch_size}
    with closing(open_loader("val", **settings)) as test_loader:
        _check(context, job, probes)

        def test(when: str) -> list[EvalResult]:
            return sweep(net, normalize, test_loader, precision, _swept(job, info, resolutions, net), when)

        before, finetunings = test("before fine-tuning"), []
        for resolution, probe in zip(resolutions, probes, strict=True):
            net.load_state_dict(original)
            result = finetune(context, job.finetune, probe)
            after = test(f"after fine-tuning for {resolution} px")
            output = job.target(resolution)
            finetunings.append(Finetuned(**vars(result), test_res=resolution, output=str(output), after=after))
            if is_main():
                save_checkpoint(output, net, replace(info, test_res=resolution, finetuned=True))
    report = FinetuneReport(job.weights, info.model, info.train_res, before, finetunings, job, capture())
    if is_main():
        write_finetune_report(report, job.report(resolutions))
    return report


def _check(context: FinetuneContext, job: FinetuneJob, probes: list[NetworkProbe]) -> None:
    """Raises InputError if one of the fine-tunings would fail."""
    with closing(context.open(job.finetune, probes[0].resolution)) as loader:
        for probe in probes:
            check_finetune(context.net, probe, loader, job.finetune, job.optim)


def _load(job: FinetuneJob, classes: tuple[str, ...]) -> tuple[nn.Module, CheckpointInfo, Normalize, Precision]:
    device = choose_device(job.device)
    net, info, normalize = job.open(classes, job.new_classifier)
    info = info if job.train_res is None else replace(info, train_res=job.train_res)
    return net.to(device), info, normalize.to(device), choose_precision(job.precision, device)


def _advised(
    job: FinetuneJob, info: CheckpointInfo, net: nn.Module, image_sizes: Callable[[], np.ndarray] | None
) -> list[int]:
    if image_sizes is None:
        raise InputError("test_res=auto needs the sizes of the training images; give resolutions instead")
    advice = advise(info.train_res, job.train_crop, EvalCrop(info.crop_pct), image_sizes(), stride_of(net))
    _log(explanation(advice))
    return [one.test_res for one in advice.candidates]


def _probe(net: nn.Module, resolution: int) -> NetworkProbe:
    """Probes the network; logs a line if the resolution is not a multiple of the stride."""
    probe = probe_network(net, resolution)
    stride = probe.stride
    if resolution % stride:
        near = f"{resolution // stride * stride or stride} or {(resolution // stride + 1) * stride}"
        _log(
            f"{resolution} px is not a multiple of the stride, {stride} px: {type(net).__name__} pads the borders; "
            f"with {near} px all pixels count alike"
        )
    return probe


def _swept(job: FinetuneJob, info: CheckpointInfo, resolutions: list[int], net: nn.Module) -> list[int]:
    """Resolutions to test at; those that the user did not name only if the network takes them."""
    named = {*job.sweep, *resolutions}
    try:
        check_takes(net, info.train_res)
    except InputError:
        return sorted(named)
    return sorted({info.train_res, *named})


def _log(line: str) -> None:
    log(f"finetune: {line}")

"""FixRes fine-tuning of a network for one or several test resolutions, with tests before and after and a report."""

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
from fixres.models.pretrained import NetworkChoice
from fixres.models.probe import NetworkProbe, check_takes, probe_network, stride_of
from fixres.observability.console import log
from fixres.observability.environment import capture
from fixres.pipelines.runtime.atomic_files import check_target
from fixres.pipelines.spec import DataConfig, EvalCrop, InputError, Loader, OpenLoader, TrainCrop, check_resolution
from fixres.resolution.advice import advise, explanation


@dataclass(frozen=True)
class FinetuneJob(NetworkChoice):
    """Fine-tunes layers of a network for test resolutions (arXiv 1906.06423, section 4). See docs/fixres.md."""

    new_classifier: bool = False
    """Start with a classifier of random weights if the network's is for another number of classes."""
    test_res: int | list[int] | Literal["auto"] = field(default_factory=list)
    """Test resolutions in pixels, each fine-tuned from the same weights; auto: those at which objects appear as large
    as in training."""
    train_res: int | None = None
    """Training resolution in pixels; the checkpoint's if null."""
    output: Path | None = None
    """Folder of the fine-tuned checkpoints and the report, or a .pt file for a single resolution; beside the checkpoint
    if null."""
    sweep: list[int] = field(default_factory=list)
    """Further test resolutions at which to test before and after each fine-tuning; train_res and test_res are always
    tested."""
    train_crop: TrainCrop = field(default_factory=TrainCrop)
    """RandomResizedCrop of the training, for auto and for augmentation train."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Which layers are trained, how long and on which images."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(batch_size=64))
    """Batch size, momentum, weight decay and label smoothing; the learning rate is that of --finetune.lr."""
    seed: int = 0
    """Seeds order, crops, flips and jitter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for resolution in (*self.resolutions, *self.sweep, *([self.train_res] if self.train_res is not None else [])):
            check_resolution(resolution)
        if self.test_res != "auto" and not self.resolutions:
            raise InputError("test_res is empty; give resolutions such as 288,320, or auto")
        if self._is_file and len(self.resolutions) != 1:
            raise InputError(f"output={self.output} is one file; for several resolutions give a folder")
        for name in ("ema", "accumulate", "steps"):
            if getattr(self.optim, name) is not None:
                raise InputError(
                    f"optim.{name} is for training; fine-tuning has its own schedule (--finetune.schedule), omit it"
                )
        if self.optim.per_process is not None:
            raise InputError(
                "optim.per_process is for training; fine-tuning needs the images of all processes, optim.batch_size"
            )
        self.check_free(self.resolutions)

    @property
    def resolutions(self) -> list[int]:
        """The test resolutions that the job names, in rising order; none for auto."""
        if self.test_res == "auto":
            return []
        return [self.test_res] if isinstance(self.test_res, int) else sorted(set(self.test_res))

    @property
    def _is_file(self) -> bool:
        return self.output is not None and self.output.suffix == ".pt"

    def target(self, test_res: int) -> Path:
        """The file of the weights fine-tuned for `test_res`."""
        if self.output is not None and self._is_file:
            return self.output
        weights = Path(self.weights)
        folder = weights.parent if weights.is_file() else Path()  # weights that are a name have no folder
        return (self.output or folder) / f"{self._stem}_finetuned{test_res}.pt"

    @property
    def _stem(self) -> str:
        weights = Path(self.weights)
        return weights.stem if weights.is_file() else weights.name

    def report(self, resolutions: list[int]) -> Path:
        """The report of the fine-tunings for `resolutions`, without its suffix."""
        name = f"{self._stem}_finetuned{'-'.join(map(str, resolutions))}_report"
        return self.target(resolutions[0]).with_name(name)

    def check_free(self, resolutions: list[int]) -> None:
        """Raises InputError if a checkpoint or the report would overwrite a file, or cannot be written."""
        if self.output is not None:
            check_target(self.output, folder=not self._is_file)
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
    """Tests, fine-tunes for each resolution and tests again; the main process writes checkpoints and report.

    For test_res auto `image_sizes` gives int (N, 2), heights and widths of training images.
    """
    predictor, info = job.open(classes, job.new_classifier)
    net = predictor.net
    info = info if job.train_res is None else replace(info, train_res=job.train_res)
    resolutions = job.resolutions or _advised(job, info, net, image_sizes)
    job.check_free(resolutions)
    probes = [_probe(net, resolution) for resolution in resolutions]
    job.report(resolutions).parent.mkdir(parents=True, exist_ok=True)
    open_loader, eval_crop = sharded(open_loader), EvalCrop(info.crop_pct)
    context = FinetuneContext(
        predictor=predictor,
        open_train=partial(open_loader, "train", seed=job.seed),
        eval_crop=eval_crop,
        train_crop=job.train_crop,
        train_res=info.train_res,
        optim=job.optim,
        seed=job.seed,
    )
    settings = {"crop": eval_crop, "resolution": resolutions[0], "batch_size": job.optim.batch_size}
    with closing(open_loader("val", **settings)) as test_loader:
        _check(context, job, probes)
        report = _run(job, info, context, probes, test_loader)
    if is_main():
        write_finetune_report(report, job.report(resolutions))
    return report


def _run(
    job: FinetuneJob, info: CheckpointInfo, context: FinetuneContext, probes: list[NetworkProbe], test_loader: Loader
) -> FinetuneReport:
    """Tests, fine-tunes for each resolution from the same weights, tests again, saves."""
    net, finetunings = context.predictor.net, []
    original = copy.deepcopy(net.state_dict())
    swept = _swept(job, info, [probe.resolution for probe in probes], net)

    def test(when: str) -> list[EvalResult]:
        return sweep(context.predictor, test_loader, swept, when)

    before = test("before fine-tuning")
    for probe in probes:
        net.load_state_dict(original)
        result = finetune(context, job.finetune, probe)
        after = test(f"after fine-tuning for {probe.resolution} px")
        output = job.target(probe.resolution)
        finetunings.append(Finetuned(**vars(result), test_res=probe.resolution, output=str(output), after=after))
        if is_main():
            save_checkpoint(output, net, replace(info, test_res=probe.resolution, finetuned=True))
    return FinetuneReport(job.weights, info.model, info.train_res, before, finetunings, job, capture())


def _check(context: FinetuneContext, job: FinetuneJob, probes: list[NetworkProbe]) -> None:
    """Raises InputError if one of the fine-tunings would fail."""
    with closing(context.open(job.finetune, probes[0].resolution)) as loader:
        for probe in probes:
            check_finetune(context.predictor.net, probe, loader, job.finetune, job.optim)


def _advised(
    job: FinetuneJob, info: CheckpointInfo, net: nn.Module, image_sizes: Callable[[], np.ndarray] | None
) -> list[int]:
    if image_sizes is None:
        raise InputError("test_res=auto needs the sizes of the training images; give resolutions instead")
    advice = advise(info.train_res, job.train_crop, EvalCrop(info.crop_pct), image_sizes(), stride_of(net))
    log(f"finetune: {explanation(advice)}")
    return [one.test_res for one in advice.candidates]


def _probe(net: nn.Module, resolution: int) -> NetworkProbe:
    """Probes the network; logs a line if the resolution is not a multiple of the stride."""
    probe = probe_network(net, resolution)
    stride = probe.stride
    if resolution % stride:
        near = f"{resolution // stride * stride or stride} or {(resolution // stride + 1) * stride}"
        log(
            f"finetune: {resolution} px is not a multiple of the stride, {stride} px: {probe.name} pads the borders; "
            f"with {near} px all pixels count alike"
        )
    return probe


def _swept(job: FinetuneJob, info: CheckpointInfo, resolutions: list[int], net: nn.Module) -> list[int]:
    """The resolutions to test at; train_res only if the network takes it, because the user did not name it."""
    named = {*job.sweep, *resolutions}
    try:
        check_takes(net, info.train_res)
    except InputError:
        return sorted(named)
    return sorted({info.train_res, *named})

"""FixRes fine-tuning of a network for one or several test resolutions, with tests before and after and a report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from fixres.config.jobs import FinetuneJob
from fixres.distributed.process_group import is_main, sharded
from fixres.evaluation.accuracy import EvalResult, sweep
from fixres.finetuning.loop import FinetuneContext, finetune
from fixres.finetuning.preflight import check_finetune, probe_for_finetune
from fixres.finetuning.report import Finetuned, FinetuneReport, write_finetune_report
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.pretrained import OpenedForJob
from fixres.models.probe import NetworkProbe, SavedWeights, set_input_size, stride_of, takes
from fixres.observability.console import log
from fixres.observability.environment import capture
from fixres.pipelines.spec import InputError, Loader, OpenLoader
from fixres.resolution.advice import advise, explanation


def finetune_network(
    job: FinetuneJob,
    opened: OpenedForJob,
    open_loader: OpenLoader,
    image_sizes: Callable[[], np.ndarray] | None = None,
) -> FinetuneReport:
    """Tests, fine-tunes for each resolution and tests again; the main process writes checkpoints and report.

    Args:
        job: what to do.
        opened: the network, for the classes of the data.
        open_loader: the data.
        image_sizes: for test_res auto: int (N, 2), heights and widths of training images.
    """
    predictor, info = opened
    net = predictor.net
    info = info if job.train_res is None else replace(info, train_res=job.train_res)
    resolutions = job.resolutions or _advised(job, info, net, image_sizes)
    job.check_free(resolutions)
    original = SavedWeights(net)
    probes = [_probed(net, resolution) for resolution in resolutions]
    original.restore()
    job.report(resolutions).parent.mkdir(parents=True, exist_ok=True)
    open_loader, eval_crop = sharded(open_loader), info.eval_crop
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
        report = _run(job, info, context, probes, test_loader, original)
    if is_main():
        write_finetune_report(report, job.report(resolutions))
    return report


def _probed(net: nn.Module, resolution: int) -> NetworkProbe:
    set_input_size(net, resolution)
    return probe_for_finetune(net, resolution)


def _run(
    job: FinetuneJob,
    info: CheckpointInfo,
    context: FinetuneContext,
    probes: list[NetworkProbe],
    test_loader: Loader,
    original: SavedWeights,
) -> FinetuneReport:
    """Tests, fine-tunes for each resolution from the same weights, tests again, saves."""
    net, finetunings = context.predictor.net, []
    swept = _swept(job, info, [probe.resolution for probe in probes], net)

    def test(when: str) -> list[EvalResult]:
        return sweep(context.predictor, test_loader, swept, when)

    before = test("before fine-tuning")
    for probe in probes:
        original.restore()
        if set_input_size(net, probe.resolution, always=job.finetune.layers == "all"):
            log(f"finetune: {info.model} is set to {probe.resolution} px; position embeddings and windows are resized")
        result = finetune(context, job.finetune, probe)
        after = test(f"after fine-tuning for {probe.resolution} px")
        output = job.target(probe.resolution)
        finetunings.append(Finetuned(**vars(result), test_res=probe.resolution, output=str(output), after=after))
        if is_main():
            save_checkpoint(output, net, replace(info, test_res=probe.resolution, finetuned=True, data=job.data.stored))
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
    advice = advise(info.train_res, job.train_crop, info.eval_crop, image_sizes(), stride_of(net))
    log(f"finetune: {explanation(advice)}")
    return [one.test_res for one in advice.candidates]


def _swept(job: FinetuneJob, info: CheckpointInfo, resolutions: list[int], net: nn.Module) -> list[int]:
    """The resolutions to test at; train_res only if the network takes it, because the user did not name it."""
    named = {*job.sweep, *resolutions}
    return sorted({info.train_res, *named} if takes(net, info.train_res) else named)

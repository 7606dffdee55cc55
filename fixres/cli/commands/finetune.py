"""Fine-tunes layers of a network for test resolutions (FixRes), with tests before and after.

fixres finetune runs/demo/fast/trained.pt --test-res 128,144        # on the data of its training
fixres finetune MODEL --test-res 288,320 --data FOLDER
fixres finetune MODEL --test-res auto --data FOLDER --finetune.augmentation test
fixres finetune MODEL --config fixresnet50 --test-res 384 --data FOLDER
torchrun --nproc-per-node 8 -m fixres finetune MODEL --test-res 384 --data FOLDER
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fixres.config.jobs import FinetuneJob
from fixres.config.parsing import RECIPES
from fixres.config.parsing import parse as parse_options

if TYPE_CHECKING:
    from fixres.finetuning.report import FinetuneReport


def parse(arguments: Sequence[str]) -> FinetuneJob:
    """The job of the command line."""
    return parse_options(FinetuneJob, arguments, __doc__, RECIPES / "finetune")


def run(job: FinetuneJob) -> None:
    """Fine-tunes, prints accuracy before and after and the files of the weights."""
    from fixres.api.classes import names_from
    from fixres.cli.data import data_of
    from fixres.distributed.process_group import first_main, is_main, joined
    from fixres.finetuning.job import finetune_network
    from fixres.models.precision import choose_device
    from fixres.models.pretrained import open_chosen
    from fixres.pipelines.datasets.prepared import PreparedData

    with joined(job.device) as device:
        job = replace(job, device=device, data=data_of(job))
        data = first_main(lambda: PreparedData(job.data, device=str(choose_device(device))))
        opened = open_chosen(
            job, data.classes, names_from(job.classes), job.new_classifier
        )  # before the images are converted
        first_main(data.prepare)
        report = finetune_network(job, opened, data, data.train_sizes)
        if is_main():
            _print(job, report)


def _print(job: FinetuneJob, report: FinetuneReport) -> None:
    print(report.table())
    for finetuned in report.finetunings:
        before, after = (next(one for one in sweep if one.test_res == finetuned.test_res)
                         for sweep in (report.before, finetuned.after))  # fmt: skip
        chosen = "" if before.num_outputs is None else " of the outputs of the data's classes"
        print(f"{finetuned.test_res} px: top1{chosen} {before.top1:.2%} before fine-tuning, {after.top1:.2%} after it")
        print(f"fine-tuned weights: {finetuned.output}")
    path = job.report([finetuned.test_res for finetuned in report.finetunings])
    print(f"report: {path}.md, {path}.json")

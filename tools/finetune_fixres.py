"""FixRes fine-tuning of a network for test resolutions, with tests before and after.

python tools/finetune_fixres.py --model FILE --test-res 288,320 --data FOLDER
python tools/finetune_fixres.py --model FILE --test-res auto --data FOLDER --finetune.augmentation test
python tools/finetune_fixres.py --config fixresnet50 --model FILE --test-res 384 --data FOLDER
torchrun --nproc-per-node 8 tools/finetune_fixres.py --model FILE --test-res 384 --data FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from fixres.pipelines.runtime.exit_codes import run

if TYPE_CHECKING:
    from fixres.finetuning.job import FinetuneJob
    from fixres.finetuning.report import FinetuneReport

_LISTS = ("--test_res", "--sweep")


def main() -> None:
    """Parses the job, fine-tunes, prints accuracy before and after and the files of the weights."""
    from fixres.config.parsing import RECIPES, named_recipes, parse
    from fixres.distributed.process_group import first_main, is_main, joined
    from fixres.finetuning.job import FinetuneJob, finetune_network
    from fixres.models.precision import choose_device
    from fixres.pipelines.datasets.prepared import PreparedData

    arguments = named_recipes(as_settings(sys.argv[1:]), RECIPES / "finetune")
    job = parse(FinetuneJob, arguments, "Fine-tunes layers of a network for test resolutions (FixRes).")
    with joined(job.device) as device:
        job = replace(job, device=device)
        data = first_main(lambda: PreparedData(job.data, device=str(choose_device(device))))
        report = finetune_network(job, data, data.classes, data.train_sizes)
        if is_main():
            _print(job, report)


def _print(job: FinetuneJob, report: FinetuneReport) -> None:
    print(report.table())
    for finetuned in report.finetunings:
        before, after = (next(one.top1 for one in sweep if one.test_res == finetuned.test_res)
                         for sweep in (report.before, finetuned.after))  # fmt: skip
        print(f"{finetuned.test_res} px: top1 {before:.2%} before fine-tuning, {after:.2%} after it")
        print(f"fine-tuned weights: {finetuned.output}")
    path = job.report([finetuned.test_res for finetuned in report.finetunings])
    print(f"report: {path}.md, {path}.json")


def as_settings(arguments: list[str]) -> list[str]:
    """Replaces short forms by names of settings: --data FOLDER, hyphens for underscores, lists without brackets."""
    settings: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            name = "--data.path" if name == "--data" else name.replace("-", "_").replace("__", "--", 1)
            settings += [name, value] if equals else [name]
        else:
            settings.append(argument)
    for k, name in enumerate(settings[:-1]):
        if name in _LISTS and "," in settings[k + 1] and not settings[k + 1].startswith("["):
            settings[k + 1] = f"[{settings[k + 1]}]"
    return settings


if __name__ == "__main__":
    run(main)

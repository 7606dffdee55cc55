"""Fixes a checkpoint: `python tools/finetune_fixres.py --checkpoint FILE --test_res 160 --data.path FOLDER`."""

from __future__ import annotations

import sys

from pipelines.console import run


def main() -> None:
    """Parses the job, fine-tunes, prints accuracy before and after and where the weights are."""
    from fixres.hardware import choose_device
    from fixres.jobs import FixJob, fix_checkpoint
    from fixres.recipe import parse
    from pipelines.opening import PreparedData

    job = parse(FixJob, sys.argv[1:], "Fine-tunes the last layers of a checkpoint for a test resolution (FixRes).")
    data = PreparedData(job.data, device=str(choose_device(job.device)))
    before, after = fix_checkpoint(job, data)
    print(f"{job.test_res} px: top1 {before.top1:.2%} before the fix, {after.top1:.2%} after it")
    print(f"fixed weights: {job.target}")


if __name__ == "__main__":
    run(main)

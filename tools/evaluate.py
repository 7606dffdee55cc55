"""Tests a checkpoint: `python tools/evaluate.py --checkpoint FILE --data.path FOLDER [--test_res [96,128]]`."""

from __future__ import annotations

import sys

from pipelines.console import run


def main() -> None:
    """Parses the job, tests, prints a line for each resolution."""
    from fixres.hardware import choose_device
    from fixres.jobs import EvaluateJob, evaluate_checkpoint
    from fixres.recipe import parse
    from pipelines.opening import PreparedData

    job = parse(EvaluateJob, sys.argv[1:], "Tests a checkpoint with the transform that it carries.")
    data = PreparedData(job.data, device=str(choose_device(job.device)))
    for result in evaluate_checkpoint(job, data):
        print(
            f"{result.test_res} px: top1 {result.top1:.2%}, top5 {result.top5:.2%}, class mean "
            f"{result.class_mean_top1:.2%}, loss {result.loss:.3f}, {result.num_images} images, "
            f"{result.images_per_second:.0f} images/s"
        )


if __name__ == "__main__":
    run(main)

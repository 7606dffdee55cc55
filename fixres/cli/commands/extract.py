"""Writes pooled features, probabilities and labels of a split as .npy files; the same command resumes a killed run.

fixres extract runs/demo/fast/finetuned.pt --data FOLDER --output features
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fixres.config.jobs import ExtractJob
from fixres.config.parsing import parse as parse_options


def parse(arguments: Sequence[str]) -> ExtractJob:
    """The job of the command line."""
    return parse_options(ExtractJob, arguments, __doc__)


def run(job: ExtractJob) -> None:
    """Extracts and prints the result."""
    from fixres.api.classes import names_from
    from fixres.cli.data import data_of
    from fixres.evaluation.features import extract
    from fixres.models.precision import choose_device
    from fixres.models.pretrained import open_chosen
    from fixres.pipelines.datasets.eval_data import open_eval_data

    job = job if job.images else replace(job, data=data_of(job))
    data = open_eval_data(job.data, str(choose_device(job.device)), job.images)
    opened = open_chosen(job, data.classes, names_from(job.classes))
    done = extract(job, opened, data, data.image_names(job.split), data.pixel_settings(job.split))
    print(
        f"{done.folder}: {done.num_images} images, {done.num_kept} of them from before; {done.seconds:.1f} s, "
        f"{(done.num_images - done.num_kept) / max(done.seconds, 1e-9):.0f} images/s"
    )

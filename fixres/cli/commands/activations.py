"""Compares the pooled activations, the classifier's input, at test resolutions.

The larger the distance of a resolution's activations to those at the training resolution, the more FixRes fine-tuning
can correct.

fixres activations runs/demo/fast/trained.pt --test-res 96,128 --plot cdf.png
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fixres.cli.output import put_picture
from fixres.config.jobs import ActivationsJob
from fixres.config.parsing import parse as parse_options


def parse(arguments: Sequence[str]) -> ActivationsJob:
    """The job of the command line."""
    return parse_options(ActivationsJob, arguments, __doc__)


def run(job: ActivationsJob) -> None:
    """Measures, prints a line for each resolution, draws."""
    from fixres.api.classes import names_from
    from fixres.cli.data import data_of
    from fixres.evaluation.activations import network_activations
    from fixres.models.precision import choose_device
    from fixres.models.pretrained import open_chosen
    from fixres.pipelines.datasets.eval_data import open_eval_data

    job = replace(job, data=data_of(job))
    data = open_eval_data(job.data, str(choose_device(job.device)))
    info, statistics = network_activations(job, open_chosen(job, None, names_from(job.classes)), data)
    for one in statistics:
        print(
            f"{one.test_res} px: zeros {one.zero_share:.2%}, mean {one.mean:.4f}, deviation {one.std:.4f}, distance to "
            f"{info.train_res} px {one.distance:.4f}, {one.num_images} images of {one.num_channels} channels"
        )
    if job.plot is not None:
        from fixres.experiment.figures import activation_cdfs

        put_picture(job.plot, activation_cdfs(statistics, info.train_res))

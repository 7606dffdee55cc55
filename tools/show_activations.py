"""Pooled activations over test resolutions: `python tools/show_activations.py --model FILE --test_res [96,128]`.

The larger the distance of a resolution's activations to those at the training resolution, the more FixRes fine-tuning
can correct.
"""

from __future__ import annotations

import sys

from fixres.pipelines.runtime.exit_codes import run


def main() -> None:
    """Parses the job, measures, prints a line for each resolution, draws."""
    from fixres.config.parsing import parse
    from fixres.evaluation.activations import ActivationsJob, network_activations
    from fixres.models.precision import choose_device
    from fixres.pipelines.datasets.prepared import PreparedData
    from fixres.pipelines.runtime.atomic_files import atomic_file

    job = parse(ActivationsJob, sys.argv[1:], "Measures the classifier's input at each test resolution.")
    data = PreparedData(job.data, device=str(choose_device(job.device)))
    info, statistics = network_activations(job, data, data.classes)
    for one in statistics:
        print(
            f"{one.test_res} px: zeros {one.zero_share:.2%}, mean {one.mean:.4f}, deviation {one.std:.4f}, distance to "
            f"{info.train_res} px {one.distance:.4f}, {one.num_images} images of {one.num_channels} channels"
        )
    if job.plot is not None:
        from fixres.experiment.figures import activation_cdfs

        with atomic_file(job.plot, overwrite=True) as partial:
            partial.write_bytes(activation_cdfs(statistics, info.train_res))


if __name__ == "__main__":
    run(main)

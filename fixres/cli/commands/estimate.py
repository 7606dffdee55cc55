"""Projects the hours of a training, small and large, from step speeds and loader speeds, and says which are measured.

fixres estimate --gpus 8 --model resnet50 --step-speed 128:2500,160:1700,224:900
fixres estimate --gpus 1 --cores 2 --model resnet18 --num-images 50000 --step-record train_step_gpu.json

Step speeds are those of --step-speed, or of a record of benchmarks.training.train_step that was made on a GPU, or they
are measured on this machine's GPU. Loader speeds come from the record of benchmarks.throughput in this package.
"""

from __future__ import annotations

from collections.abc import Sequence

from fixres.cli.output import STDOUT, check_json, put_json
from fixres.config.parsing import parse as parse_options
from fixres.projection.options import EstimateOptions


def parse(arguments: Sequence[str]) -> EstimateOptions:
    """The options of the command line."""
    options = parse_options(EstimateOptions, arguments, __doc__)
    check_json(options.json)
    return options


def run(options: EstimateOptions) -> None:
    """Projects and prints."""
    from fixres.projection.projection import estimate

    projection = estimate(options)
    if options.json != STDOUT:
        print(projection.text())
    put_json(options.json, projection.as_json())

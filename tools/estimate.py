"""What will training small save me? Projects hours from measured speeds; the output says that it is projected.

python tools/estimate.py --gpus 8 --model resnet50 --images 1281167
python tools/estimate.py --gpus 1 --cores 2 --model resnet18 --images 50000 --small 128:12,160:4

Step speeds come from a record of benchmarks.training.train_step that has the network and was made on the same device
(on a machine without a GPU: on any GPU), else from a quick measurement here; loader speeds from the record of
benchmarks.throughput.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
from dataclasses import fields

from benchmarks.harness.options import add_options
from benchmarks.projection.scenario import Scenario, project, step_speeds
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.cli import Parser
from fixres.pipelines.runtime.exit_codes import run


def main() -> None:
    """Parses the command line and projects."""
    options = _parse()
    if options.cores is None:
        options.cores = 12 * options.gpus
    scenario = Scenario(**{field.name: getattr(options, field.name) for field in fields(Scenario)})
    projection = project(scenario, *step_speeds(options.model, options.measure, options.recorded))
    print(projection.text())
    if options.json:
        write_json(options.json, projection.as_json())


def _schedule(text: str) -> tuple[tuple[int, int], ...]:
    """A type for schedules such as 128:12,160:4."""
    try:
        return tuple((int(side), int(epochs)) for side, epochs in (part.split(":") for part in text.split(",")))
    except ValueError:
        message = f"{text!r} is not of the form resolution:epochs, such as 128:12,160:4"
        raise argparse.ArgumentTypeError(message) from None


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    schedule = {"type": _schedule, "metavar": "RESOLUTION:EPOCHS,..."}
    parser.add_argument("--gpus", type=int, default=1, help="devices (%(default)s)")
    parser.add_argument("--cores", type=int, help="loader cores in all (12 for each device)")
    parser.add_argument("--images", dest="num_images", type=int, default=1281167, metavar="IMAGES",
                        help="size of the training set (%(default)s)")  # fmt: skip
    parser.add_argument("--large", default="224:16", help="the usual training (%(default)s)", **schedule)
    parser.add_argument("--small", default="128:12,160:4", help="the fast training (%(default)s)", **schedule)
    parser.add_argument("--test-res", type=int, default=224, help="of the fine-tuning, in pixels (%(default)s)")
    parser.add_argument("--finetune-epochs", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--recorded", action="store_true", help="take recorded step speeds of another machine")
    parser.add_argument("--measure", action="store_true", help="measure step speeds here even if they are recorded")
    add_options(parser, model="resnet50", json=None)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

"""What will training small save me? Projects hours from measured speeds; the answer is marked as projected.

python tools/estimate.py --gpus 8 --model resnet50 --images 1281167
python tools/estimate.py --gpus 1 --cores 2 --model resnet18 --images 50000 --small 128:12,160:4

Step speeds come from a record of benchmarks.training.train_step that has the network and was made on the same device
(or, where
there is no GPU, on any), else from a quick measurement here; loader speeds from the record of benchmarks.throughput.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse

from benchmarks.projection.scenario import Scenario, project, step_speeds
from pipelines.runtime import exit_codes as console
from pipelines.runtime.atomic_files import write_json
from pipelines.runtime.cli import Parser, output_file
from pipelines.spec import InputError


def main() -> None:
    """Parses the command line and projects."""
    options = _parse()
    scenario = Scenario(
        model=options.model,
        num_images=options.images,
        gpus=options.gpus,
        cores=12 * options.gpus if options.cores is None else options.cores,
        large=_schedule(options.large),
        small=_schedule(options.small),
        test_res=options.test_res,
        finetune_epochs=options.finetune_epochs,
    )
    projection = project(scenario, step_speeds(options.model, options.measure, options.recorded))
    print(projection.text())
    if options.json:
        write_json(options.json, projection.plain())


def _schedule(text: str) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(side), int(epochs)) for side, epochs in (part.split(":") for part in text.split(",")))
    except ValueError:
        raise InputError(f"{text!r} is not of the form resolution:epochs, such as 128:12,160:4") from None


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--model", default="resnet50", help="a timm name (%(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="devices (%(default)s)")
    parser.add_argument("--cores", type=int, help="for loading, in all (12 for each device)")
    parser.add_argument("--images", type=int, default=1281167, help="of the training set (%(default)s)")
    parser.add_argument("--large", default="224:16", help="resolution:epochs of the usual way (%(default)s)")
    parser.add_argument("--small", default="128:12,160:4", help="resolution:epochs,... of the fast way (%(default)s)")
    parser.add_argument("--test-res", type=int, default=224, help="of the fix (%(default)s)")
    parser.add_argument("--fix-epochs", type=int, default=1)
    parser.add_argument("--recorded", action="store_true", help="take recorded step speeds of another machine")
    parser.add_argument("--measure", action="store_true", help="measure step speeds here even if they are recorded")
    parser.add_argument("--json", type=output_file, help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    console.run(main)

"""What will training small save me? Projects hours from measured speeds; the output says what was measured and where.

python tools/estimate.py --gpus 8 --model resnet50 --step-speed 128:2500,160:1700,224:900
python tools/estimate.py --gpus 1 --cores 2 --model resnet18 --num-images 50000 --step-record train_step_gpu.json

Step speeds are those of --step-speed, or of a record of benchmarks.training.train_step that was made on a GPU, or they
are measured on this machine's GPU. Loader speeds come from the record of benchmarks.throughput in this package.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from dataclasses import fields
from pathlib import Path

from benchmarks.harness.options import add_options, pairs
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.cli import Parser
from fixres.pipelines.runtime.exit_codes import run
from fixres.projection.options import EstimateOptions
from fixres.projection.projection import estimate


def main() -> None:
    """Parses the command line and projects."""
    options = _parse()
    projection = estimate(options)
    print(projection.text())
    if options.json:
        write_json(options.json, projection.as_json())


def _parse() -> EstimateOptions:
    parser, usual = Parser(__doc__), EstimateOptions()
    parser.add_argument("--gpus", type=int, default=usual.gpus, help="GPUs, or machines with --device cpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default=usual.device, help="what trains (%(default)s)")
    parser.add_argument("--cores", type=int, help="loader cores in all (12 for each device)")
    parser.add_argument("--num-images", type=int, default=usual.num_images, help="in the training set (%(default)s)")
    for name, what in (("large", "usual"), ("small", "fast")):
        parser.add_argument(f"--{name}", type=pairs(int), default=getattr(usual, name), metavar="RESOLUTION:EPOCHS,...",
                            help=f"the {what} training (%(default)s)")  # fmt: skip
    parser.add_argument("--test-res", type=int, default=usual.test_res, help="of the fine-tuning, px (%(default)s)")
    parser.add_argument("--finetune-epochs", type=int, default=usual.finetune_epochs, help="(%(default)s)")
    parser.add_argument("--step-speed", type=pairs(float), default={}, help="images/s of one device by resolution")
    parser.add_argument("--step-record", type=Path, help="a record of benchmarks.training.train_step made on a GPU")
    parser.add_argument("--loader-record", type=Path, help="a record of benchmarks.throughput (the package's)")
    add_options(parser, model=usual.model, json=None)
    options = parser.parse_args()
    return EstimateOptions(**{field.name: getattr(options, field.name) for field in fields(EstimateOptions)})


if __name__ == "__main__":
    run(main)

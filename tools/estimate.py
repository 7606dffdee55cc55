"""What will training small save me? Projects hours from measured speeds; the answer is marked as projected.

python tools/estimate.py --gpus 8 --model resnet50 --images 1281167
python tools/estimate.py --gpus 1 --cores 2 --model resnet18 --images 50000 --small 128:12,160:4

Step speeds come from the record benchmarks/results/train_step.json if it has the network and was made on the same
device, else from a quick measurement here; loader speeds from benchmarks/results/throughput.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.projection import Machine, as_text, loaders_of, phases, steps_of
from benchmarks.tables import RESULTS
from benchmarks.train_step import quick_steps
from fixres.environment import capture
from pipelines import console
from pipelines.spec import InputError


def main() -> None:
    """Parses the command line and projects."""
    options = _parse()
    step, where = _step_speeds(options)
    throughput = json.loads((RESULTS / "throughput.json").read_text())
    small, large = _schedule(options.small), _schedule(options.large)
    cores = options.cores or 12 * options.gpus
    totals = {}
    print(f"Projected, not measured: {options.model}, {options.images} images, {options.gpus} devices, {cores} cores.")
    print(f"Step speeds: {where}. Loader speeds: one core of {throughput['environment']['cpu']}.")
    for title, schedule, fix, engine in (
        ("large throughout, engine of today (dali)", large, (0, 0), "dali"),
        ("large throughout, engine roc", large, (0, 0), "roc"),
        ("small, then fixed, engine dali", small, (options.test_res, options.fix_epochs), "dali"),
        ("small, then fixed, engine roc", small, (options.test_res, options.fix_epochs), "roc"),
    ):
        machine = Machine(options.gpus, cores, step, loaders_of(throughput, engine))
        found = phases(machine, options.images, schedule, fix)
        totals[title] = sum(phase.seconds for phase in found)
        print(as_text(title, found, options.gpus))
    first, last = next(iter(totals.values())), list(totals.values())[-1]
    print(f"small with roc takes {last / first:.2f} of the time of large with dali (projected)")
    print("epoch(r) = images / min(devices * step(r), cores * loader(r)); the fix costs a third of a step")
    if options.json:
        options.json.write_text(json.dumps({"projected": True, "seconds": totals}, indent=1) + "\n")


def _step_speeds(options: argparse.Namespace) -> tuple[dict[int, float], str]:
    file = RESULTS / "train_step.json"
    record = json.loads(file.read_text()) if file.exists() else {"results": [], "environment": {}}
    here, there = capture(), record["environment"]
    same = all(here[key] == there.get(key) for key in ("cpu", "gpu"))
    if not options.measure and (found := steps_of(record, options.model)) and (same or options.recorded):
        return found, f"recorded on {there['gpu'] or there['cpu']}"
    return quick_steps(options.model), f"measured now on {here['gpu'] or here['cpu']}"


def _schedule(text: str) -> list[tuple[int, int]]:
    try:
        return [(int(side), int(epochs)) for side, epochs in (part.split(":") for part in text.split(","))]
    except ValueError:
        raise InputError(f"{text!r} is not of the form resolution:epochs, such as 128:12,160:4") from None


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument("--json", type=Path, help="write the seconds there")
    return parser.parse_args()


if __name__ == "__main__":
    console.run(main)

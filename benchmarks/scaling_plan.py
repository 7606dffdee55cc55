"""What a run on many GPUs will come to, and what breaks first: projected from measured parts and named assumptions.

python -m benchmarks.scaling_plan --gpus 8,64,256,1024 --model resnet50 --res 128 --step 224:2500 --nic 50 --json FILE

Every input is an option. Without one it comes from a record in benchmarks/results (loader speeds, bytes an image, on a
GPU machine step speeds and bandwidth), else it is an assumption, and the table of inputs says so. The formulas are
those of benchmarks.scaling_model, printed below the table. Nothing of the result is a measurement.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import scaling_model
from benchmarks.conditions import conditions
from benchmarks.options import sides
from benchmarks.projection import at_resolution, loaders_of, steps_of
from benchmarks.records import RESULTS, finish, read_record, record
from benchmarks.scaling import gradient_bytes
from benchmarks.scaling_model import Inputs, breaks, project
from benchmarks.scaling_plan_table import scaling_plan_table
from pipelines.arguments import Parser, output_file
from pipelines.console import run
from pipelines.spec import InputError

Found = tuple[float, str]
"""A value and where it comes from."""
_GIVEN = "given"
_ASSUMED: dict[str, tuple[float, str]] = {
    "local": (256, "assumed"),
    "batch_limit": (8192, "arXiv 1706.02677: with warm-up no loss up to there"),
    "gpus_per_node": (8, "assumed"),
    "link": (200, "assumed"),
    "nic": (50, "assumed: 400 Gbit/s"),
    "latency": (10, "assumed"),
    "overlap": (0.5, "assumed: most of the backward pass, not all"),
    "cores": (12, "assumed"),
    "memory": (400, "assumed"),
    "storage": (5, "assumed"),
    "iops": (100_000, "assumed"),
    "mtbf": (5000, "assumed; arXiv 2407.21783: 419 failures of 2048 nodes in 54 days, 6300 h for each"),
    "restart": (180, "assumed"),
    "write": (2, "assumed"),
}
_STEP = ({224: 2500.0}, "assumed at 224 px, scaled by pixels: no GPU was measured")
UNITS = {
    "step": ("images/s", 1),
    "gradients": ("MB", 1e6),
    "link": ("GB/s", 1e9),
    "nic": ("GB/s", 1e9),
    "latency": ("us", 1e-6),
    "loader": ("images/s", 1),
    "image_bytes": ("KB", 1e3),
    "file_bytes": ("GB", 1e9),
    "memory": ("GB", 1e9),
    "storage": ("GB/s", 1e9),
    "mtbf": ("h", 3600),
    "restart": ("s", 1),
    "write": ("s", 1),
}
"""Of the options and tables, and what one of them is in `Inputs`' units."""
_WHOLE = ("images", "epochs", "local", "batch_limit", "gpus_per_node")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The record of a projection."""
    found = _find(options)
    values = {name: value * UNITS.get(name, ("", 1))[1] for name, (value, _) in found.items()}
    inputs = Inputs(**values | {name: int(values[name]) for name in _WHOLE})
    return record(
        "scaling_plan",
        target=options.json,
        note=f"{options.model} at {options.res} px, engine {options.engine}.",
        settings=options,
        environment=conditions(),
        projected=True,
        inputs=[
            {"name": name, "value": value, "unit": UNITS.get(name, ("", 1))[0], "source": source}
            for name, (value, source) in found.items()
        ],
        results=[asdict(project(inputs, gpus)) for gpus in options.gpus],
        breaks=breaks(inputs),
        engines={name: inputs.step / speed for name, (speed, _) in _engines(options.res).items()},
        formulas=_formulas(),
    )


def _formulas() -> list[str]:
    """As the module that computes them states them."""
    return [line.strip() for line in (scaling_model.__doc__ or "").splitlines() if line.startswith("    ")]


def _find(options: argparse.Namespace) -> dict[str, Found]:
    """Each input in the units of the options, with its source."""
    throughput, engines = _throughput(), _engines(options.res)
    if options.engine not in engines:
        raise InputError(f"engine={options.engine!r} has no recorded speed; there are {', '.join(engines)}")
    stored = "roc" if options.engine == "roc-dali" else options.engine
    measured: dict[str, Callable[[], Found]] = {
        "step": lambda: _step(options),
        "gradients": lambda: (gradient_bytes(options.model) / 1e6, f"the weights of {options.model}, 32 bits each"),
        "loader": lambda: engines[options.engine],
        "image_bytes": lambda: _image_bytes(throughput, stored, options.res),
        "file_bytes": lambda: _file_bytes(throughput, stored, options.images),
        "link": lambda: _link() or _ASSUMED["link"],
        "write": lambda: _write(options.model) or _ASSUMED["write"],
    }
    found: dict[str, Found] = {"images": (options.images, _GIVEN), "epochs": (options.epochs, _GIVEN)}
    for name in Inputs.__dataclass_fields__:
        given = getattr(options, name)
        if name in ("images", "epochs"):
            continue
        if given is not None and name != "step":
            found[name] = given, _GIVEN
        else:
            found[name] = measured[name]() if name in measured else _ASSUMED[name]
    return found


def _throughput() -> dict[str, Any]:
    return read_record(RESULTS / "throughput.json", "throughput")


def _engines(resolution: int) -> dict[str, Found]:
    """Images a second of one core, by engine."""
    throughput, found = _throughput(), {}
    for engine in throughput["settings"]["engines"]:
        if not engine.endswith("-raw"):
            speed = at_resolution(loaders_of(throughput, engine), resolution, by_pixels=False)
            found[engine] = speed, f"throughput.json, a core of {throughput['environment']['cpu']}"
    feeding = read_record(RESULTS / "feeding.json", "feeding")
    host = {one["res"]: 1e6 / sum(map(statistics.median, _host(one))) for one in feeding["results"]}
    speed = at_resolution(host, resolution, by_pixels=False)
    return found | {"roc-dali": (speed, "feeding.json, the host's part alone; the GPU's was not measured")}


def _host(one: dict[str, Any]) -> list[list[float]]:
    """Cutting and the queue: what the host does when the GPU decodes."""
    return [one["microseconds"]["cut"], one["microseconds"]["queue"]]


def _step(options: argparse.Namespace) -> Found:
    """One GPU's images a second: given, recorded on a GPU, or assumed for resnet50."""
    if options.step is not None:
        return at_resolution(_speeds(options.step), options.res, by_pixels=True), f"{_GIVEN}: {options.step}"
    for path, one in _records("train_step"):
        speeds = steps_of(one, options.model)
        if speeds and one["environment"].get("gpu"):
            return at_resolution(speeds, options.res, by_pixels=True), f"{path.name}, {one['environment']['gpu']}"
    if options.model != "resnet50":
        raise InputError(f"no GPU step speed of {options.model} is recorded; give --step RESOLUTION:IMAGES_PER_SECOND")
    return at_resolution(_STEP[0], options.res, by_pixels=True), _STEP[1]


def _speeds(text: str) -> dict[int, float]:
    try:
        found = {int(side): float(speed) for side, speed in (part.split(":") for part in text.split(","))}
    except ValueError:
        found = {}
    if not found or min(found.values()) <= 0:
        raise InputError(f"step={text!r} must be RESOLUTION:IMAGES_PER_SECOND, such as 224:2500")
    return found


def _records(kind: str) -> list[tuple[Path, dict[str, Any]]]:
    read = [(path, read_record(path)) for path in sorted(RESULTS.glob("*.json"))]
    return [(path, one) for path, one in read if one["kind"] == kind]


def _link() -> Found | None:
    """The bus bandwidth of the largest all-reduce among the most GPUs that was recorded."""
    for path, one in _records("scaling"):
        if one["environment"].get("device") == "cuda" and one["interconnect"]:
            best = max(one["interconnect"], key=lambda link: (link["processes"], link["bytes"]))
            return best["bus_bytes_per_second"] / 1e9, f"{path.name}, {best['processes']} GPUs"
    return None


def _write(model: str) -> Found | None:
    for path, one in _records("survival"):
        for network in one["results"]:
            if network["name"] == model:
                return network["write_seconds"]["value"], f"{path.name}, a {one['environment']['storage']['device']}"
    return None


def _image_bytes(throughput: dict[str, Any], engine: str, resolution: int) -> Found:
    read = {one["res"]: one["bytes_per_image"] for one in throughput["results"] if one["engine"] == engine}
    if not read or None in read.values():
        raise InputError(f"engine={engine!r} does not tell what it reads; give --image-bytes in KB")
    return at_resolution(read, resolution, by_pixels=False) / 1e3, "throughput.json"


def _file_bytes(throughput: dict[str, Any], engine: str, images: int) -> Found:
    each = throughput["file_bytes"][engine] / throughput["settings"]["num_images"]
    return images * each / 1e9, "throughput.json, bytes of a stored image"


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--gpus", default="8,64,256,1024", help="%(default)s")
    parser.add_argument("--model", default="resnet50", help="timm name (%(default)s)")
    parser.add_argument("--res", default="128", help="side in pixels (%(default)s)")
    parser.add_argument("--engine", default="roc", help="%(default)s")
    parser.add_argument("--images", type=int, default=1281167, help="of the training set (%(default)s)")
    parser.add_argument("--epochs", type=int, default=16, help="%(default)s")
    parser.add_argument("--step", help="images a second of one GPU, RESOLUTION:SPEED,... (recorded, else assumed)")
    for name in Inputs.__dataclass_fields__:
        if name not in ("images", "epochs", "step"):
            origin = "{:g}, {}".format(*_ASSUMED[name]) if name in _ASSUMED else "recorded"
            unit = f"in {UNITS[name][0]} " if name in UNITS else ""
            parser.add_argument(f"--{name.replace('_', '-')}", type=float, help=f"{unit}({origin})")
    parser.add_argument("--json", type=output_file, help="such as benchmarks/results/scaling_plan.json")
    options = parser.parse_args()
    try:
        options.gpus = [int(number) for number in options.gpus.split(",")]
    except ValueError:
        options.gpus = []
    if not options.gpus or min(options.gpus) < 1:
        raise InputError("gpus must be numbers such as 8,64")
    options.res = sides(options.res)[0]
    return options


def main() -> None:
    """Projects, prints the tables, writes the file."""
    options = _parse()
    content = measure(options)
    print(scaling_plan_table(content))
    finish(content, options.json)


if __name__ == "__main__":
    run(main)

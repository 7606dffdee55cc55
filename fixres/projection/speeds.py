"""Where the speeds of a projection come from: given by the user, a record, or a short measurement on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fixres.pipelines.spec import InputError
from fixres.projection.model import Speeds
from fixres.projection.options import EstimateOptions
from fixres.reporting.records import read_record

ENGINES = ("dali", "roc")
_THROUGHPUT = Path(__file__).with_name("throughput.json")  # a link to the record in benchmarks/results
_REMEDY = (
    "give --step-speed 128:2500,160:1700,224:900 (images/s of one GPU at each resolution) or --step-record FILE "
    "(a record of benchmarks.training.train_step made on a GPU)"
)


def step_speeds(options: EstimateOptions) -> Speeds:
    """Training speed of one device.

    Raises:
        InputError: it is not known and cannot be measured here; or the record is of another kind of device. A CPU's
            speed is never taken for a GPU's.
    """
    if options.step_speed:
        return Speeds(options.step_speed, True, "given with --step-speed, not measured here")
    if options.step_record:
        return _recorded_steps(options, options.step_record)
    return _measured_steps(options)


def loader_speeds(record: Path | None = None) -> dict[str, Speeds]:
    """Speed of one core of each engine in `ENGINES`, from a record of benchmarks.throughput; the package's if None."""
    with _complete(record or _THROUGHPUT, "throughput") as content:
        if str(content["settings"]["device"]).startswith("cuda"):
            raise InputError(f"loader_record={record}: GPUs decoded there; measure CPU cores with --device cpu")
        origin = f"{_place(content)} ({record or 'the record of this package'})"
        return {engine: Speeds(_loaders_of(content, engine), False, origin) for engine in ENGINES}


@contextmanager
def _complete(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """A record; using what is missing in it raises InputError."""
    try:
        yield read_record(path, kind)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a complete record of kind {kind!r} ({error!r}); make it again") from None


def _recorded_steps(options: EstimateOptions, path: Path) -> Speeds:
    with _complete(path, "train_step") as content:
        environment = content["environment"]
        _check_device(options, path, environment)
        known = {one["res"]: one["images_per_second"] for one in content["results"] if one["model"] == options.model}
        if not known:
            models = ", ".join(dict.fromkeys(one["model"] for one in content["results"]))
            raise InputError(f"model={options.model!r} is not in step_record={path}; it has {models}")
        return Speeds(known, True, f"{_place(content)} ({path})")


def _check_device(options: EstimateOptions, path: Path, environment: Mapping[str, Any]) -> None:
    """Raises InputError unless the record was made on the kind of device that is projected."""
    on_gpu = str(environment.get("device")).startswith("cuda")
    if on_gpu and options.device == "cpu":
        raise InputError(f"step_record={path} was measured on GPU {environment.get('gpu')}; use --device cuda")
    if not on_gpu and options.device == "cuda":
        cpu = environment.get("cpu")
        raise InputError(f"step_record={path} was measured on CPU {cpu}, not on a GPU; {_REMEDY}, or use --device cpu")


def _measured_steps(options: EstimateOptions) -> Speeds:
    import torch

    from fixres.observability.environment import capture
    from fixres.training.step_speed import measure_steps

    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"this machine has no GPU, so a GPU's step speed cannot be measured here; {_REMEDY}")
    known = measure_steps(options.model, options.resolutions, torch.device(options.device))
    return Speeds(known, True, f"{_place({'environment': capture()}, options.device)} (now, in a few seconds)")


def _loaders_of(record: dict[str, Any], engine: str) -> dict[int, float]:
    """Images/s of one core by resolution."""
    threads, results = max(record["settings"]["threads"], 1), record["results"]
    found = {one["res"]: one["images_per_second"] / threads for one in results if one["engine"] == engine}
    if not found:
        known = ", ".join(dict.fromkeys(one["engine"] for one in results))
        raise InputError(f"engine {engine} is not in the throughput record; it has {known}")
    return found


def _place(record: dict[str, Any], device: str = "") -> str:
    """Where and at which commit a record was measured."""
    environment = record["environment"]
    on_gpu = str(environment.get("device", device)).startswith("cuda")
    commit = environment.get("commit")
    what = environment.get("gpu") if on_gpu else f"{environment.get('cpu')}, {environment.get('num_cores')} cores"
    return f"measured on {what}{f', commit {commit[:7]}' if commit else ''}"

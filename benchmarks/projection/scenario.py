"""Projects training at full resolution and training small with fine-tuning, on a data set like ImageNet.

Nothing here is a measurement. Step speeds come from a record of benchmarks.training.train_step, else from a quick
measurement; loader speeds come from the record of benchmarks.throughput. `benchmarks.projection.model` has the
formulas.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness.records import RESULTS
from benchmarks.projection.model import Phase, Schedule, loaders_of, phases, steps_of
from benchmarks.training.train_step import quick_record
from fixres.observability.environment import capture
from fixres.pipelines.spec import InputError, check_resolution

FORMULA = (
    "epoch(r) = images / min(devices * step(r), cores * loader(r)); "
    "finetune(r) = images / min(devices * 3 * step(r), cores * loader(r)); a run is the sum over its epochs"
)
ENGINES = ("dali", "roc")


@dataclass(frozen=True)
class Scenario:
    """The runs to project."""

    model: str = "resnet50"  # a timm name
    num_images: int = 1281167  # size of the training set
    gpus: int = 8  # number of devices
    cores: int = 96  # loader cores in all
    large: Schedule = ((224, 16),)  # schedule of the usual training
    small: Schedule = ((128, 12), (160, 4))  # schedule of the fast training
    test_res: int = 224  # resolution in pixels for which the fast training is fine-tuned
    finetune_epochs: int = 1  # epochs of fine-tuning

    def __post_init__(self) -> None:
        if min(self.gpus, self.cores, self.num_images) < 1 or self.finetune_epochs < 0:
            raise InputError(
                f"gpus={self.gpus}, cores={self.cores} and images={self.num_images} must be at least 1, "
                f"finetune-epochs={self.finetune_epochs} at least 0"
            )
        check_resolution(self.test_res)
        for side, epochs in (*self.large, *self.small):
            check_resolution(side)
            if epochs < 1:
                raise InputError(f"{epochs} epochs at {side} px; use at least 1")


def step_speeds(model: str, measure: bool = False, any_device: bool = False) -> tuple[dict[int, float], str]:
    """Images/s of a network by resolution, from a record of the same device, else measured now; and their origin.

    A machine without a GPU takes speeds that were recorded on a GPU. `measure` ignores all records; `any_device` takes
    a record of any device.
    """
    here = capture()
    for record in [] if measure else _records("train_step"):
        there, found = record["environment"], steps_of(record, model)
        same = all(here[key] == there.get(key) for key in ("cpu", "gpu"))
        if found and (same or any_device or (there.get("gpu") and not here["gpu"])):
            return found, f"recorded on {there['gpu'] or there['cpu']}"
    device = here["gpu"] or f"{here['cpu']}, {here['num_cores']} cores as one device, no GPU"
    return steps_of(quick_record(model, [128, 160, 224]), model), f"measured now on {device}"


def _records(kind: str) -> list[dict[str, Any]]:
    """The repository's records of a kind: those of GPUs first, then the one named after its kind."""
    read = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    found = [(name, record) for name, record in read.items() if record.get("kind") == kind]
    found.sort(key=lambda one: (not one[1]["environment"].get("gpu"), one[0] != kind))
    return [record for _, record in found]


@dataclass(frozen=True)
class Projection:
    """Projected runs."""

    scenario: Scenario  # what was projected
    steps: dict[int, float]  # images/s of one device in training, by resolution
    origins: tuple[str, str]  # of the speeds of steps and loaders
    # phases by title; the first is the usual training, the last the fast training with engine roc
    runs: dict[str, list[Phase]]

    def hours(self) -> dict[str, float]:
        """Hours of each run, by title."""
        return {title: sum(phase.seconds for phase in found) / 3600 for title, found in self.runs.items()}

    def conditions(self) -> list[str]:
        """Two lines: the scenario, and the origin of the speeds."""
        one = self.scenario
        devices = "device" if one.gpus == 1 else "devices"
        return [
            f"Projected, not measured: {one.model}, {one.num_images} images, {one.gpus} {devices}, {one.cores} cores.",
            f"Step speeds: {self.origins[0]}. Loader speeds: one core of {self.origins[1]}.",
        ]

    def verdicts(self) -> list[str]:
        """Two lines that compare the runs."""
        hours = list(self.hours().values())
        return [
            f"small with roc takes {hours[-1] / hours[0]:.2f} of the time of large with dali (projected)",
            f"with roc in both, small takes {hours[-1] / hours[1]:.2f} of the time of large (projected)",
        ]

    def text(self) -> str:
        """For the terminal."""
        runs = []
        for (title, found), hours in zip(self.runs.items(), self.hours().values(), strict=True):
            runs += [title, *(phase.text() for phase in found)]
            runs.append(f"  projected {hours:.2f} h, {self.scenario.gpus * hours:.1f} device hours")
        return "\n".join([*self.conditions(), *runs, *self.verdicts(), FORMULA])

    def as_json(self) -> dict[str, Any]:
        return {
            "projected": True,
            "formula": FORMULA,
            "conditions": self.conditions(),
            "scenario": asdict(self.scenario),
            "images_per_second": {"step": self.steps},
            "runs": {title: [asdict(phase) for phase in found] for title, found in self.runs.items()},
            "hours": self.hours(),
            "verdicts": self.verdicts(),
        }


def project(scenario: Scenario, steps: dict[int, float], origin: str) -> Projection:
    """The usual training and the fast one with fine-tuning, each with engines dali and roc."""
    recorded = next(iter(_records("throughput")), None)
    if recorded is None:
        raise InputError(f"no throughput record in {RESULTS}; make one: python -m benchmarks.throughput --json FILE")
    runs = {}
    for title, schedule, epochs in (
        ("large", scenario.large, 0),
        ("small, then fine-tuned", scenario.small, scenario.finetune_epochs),
    ):
        for engine in ENGINES:
            speeds, one = (steps, loaders_of(recorded, engine)), scenario
            found = phases(one.gpus, one.cores, *speeds, one.num_images, schedule, (one.test_res, epochs))
            runs[f"{title}, engine {engine}"] = found
    return Projection(scenario, steps, (origin, recorded["environment"]["cpu"]), runs)

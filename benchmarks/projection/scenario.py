"""Large throughout against small and fixed on a data set like ImageNet, projected: nothing here is a measurement.

Step speeds come from a record of benchmarks.training.train_step, else from a quick measurement on the spot; loader
speeds from
the record of benchmarks.throughput. The sums are those of benchmarks.projection.model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.docs.render import RESULTS
from benchmarks.projection.model import Machine, Phase, as_text, loaders_of, phases, steps_of
from benchmarks.training.train_step import quick_steps
from fixres.observability.environment import capture
from pipelines.spec import InputError, check_resolution

FORMULA = (
    "epoch(r) = images / min(devices * step(r), cores * loader(r)); "
    "fix(r) = images / min(devices * 3 * step(r), cores * loader(r)); a run is the sum over its epochs"
)
ENGINES = ("dali", "roc")
Schedule = list[tuple[int, int]]


@dataclass(frozen=True)
class Scenario:
    """What is projected.

    Attributes:
        model: a timm name.
        num_images: of the training set.
        gpus: devices.
        cores: for loading, in all.
        large: (resolution, epochs) of the usual way.
        small: (resolution, epochs), ... of the fast way.
        test_res: resolution in pixels that the fast way is fixed for.
        finetune_epochs: of fine-tuning.
    """

    model: str = "resnet50"
    num_images: int = 1281167
    gpus: int = 8
    cores: int = 96
    large: tuple[tuple[int, int], ...] = ((224, 16),)
    small: tuple[tuple[int, int], ...] = ((128, 12), (160, 4))
    test_res: int = 224
    finetune_epochs: int = 1

    def __post_init__(self) -> None:
        check_resolution(self.test_res)
        for side, epochs in (*self.large, *self.small):
            check_resolution(side)
            if epochs < 1:
                raise InputError(f"{epochs} epochs at {side} px; give at least 1")


@dataclass(frozen=True)
class Speeds:
    """Images a second by resolution, and where they come from.

    Attributes:
        values: of one device in training.
        origin: the device, and whether recorded or measured now.
    """

    values: dict[int, float]
    origin: str


def step_speeds(model: str, measure: bool = False, any_device: bool = False) -> Speeds:
    """Step speeds of a network: recorded on a device like this one's, else measured now.

    A machine without a GPU takes those recorded on a GPU, for nobody trains on eight CPUs.

    Args:
        model: a timm name.
        measure: measure here even if there is a record.
        any_device: take a record of any device.
    """
    here = capture()
    for record in [] if measure else _records("train_step"):
        there, found = record["environment"], steps_of(record, model)
        same = all(here[key] == there.get(key) for key in ("cpu", "gpu"))
        if found and (same or any_device or (there.get("gpu") and not here["gpu"])):
            return Speeds(found, f"recorded on {there['gpu'] or there['cpu']}")
    if here["gpu"]:
        return Speeds(quick_steps(model), f"measured now on {here['gpu']}")
    return Speeds(quick_steps(model), f"measured now on {here['cpu']}, {here['num_cores']} cores as one device, no GPU")


def _records(kind: str) -> list[dict[str, Any]]:
    """The repository's records of a kind, those of GPUs first, then the one that is named after its kind."""
    read = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    found = [(name, record) for name, record in read.items() if record.get("kind") == kind]
    found.sort(key=lambda one: (not one[1]["environment"].get("gpu"), one[0] != kind))
    return [record for _, record in found]


@dataclass(frozen=True)
class Projection:
    """Projected runs.

    Attributes:
        scenario: what was projected.
        steps: step speeds and their origin.
        loader_origin: what a loader core is.
        runs: phases by title; the first is the usual way of today, the last the fast way with engine roc.
    """

    scenario: Scenario
    steps: Speeds
    loader_origin: str
    runs: dict[str, list[Phase]]

    def hours(self) -> dict[str, float]:
        """Hours of each run, by title."""
        return {title: sum(phase.seconds for phase in found) / 3600 for title, found in self.runs.items()}

    def conditions(self) -> list[str]:
        """Two lines: what is projected, from what."""
        one = self.scenario
        devices = "device" if one.gpus == 1 else "devices"
        return [
            f"Projected, not measured: {one.model}, {one.num_images} images, {one.gpus} {devices}, {one.cores} cores.",
            f"Step speeds: {self.steps.origin}. Loader speeds: one core of {self.loader_origin}.",
        ]

    def verdicts(self) -> list[str]:
        """What it comes to."""
        hours = list(self.hours().values())
        return [
            f"small with roc takes {hours[-1] / hours[0]:.2f} of the time of large with dali (projected)",
            f"with roc in both, small takes {hours[-1] / hours[1]:.2f} of the time of large (projected)",
        ]

    def text(self) -> str:
        """For the terminal."""
        runs = [as_text(title, found, self.scenario.gpus) for title, found in self.runs.items()]
        return "\n".join([*self.conditions(), *runs, *self.verdicts(), FORMULA])

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "projected": True,
            "formula": FORMULA,
            "conditions": self.conditions(),
            "scenario": asdict(self.scenario),
            "images_per_second": {"step": self.steps.values},
            "runs": {title: [asdict(phase) for phase in found] for title, found in self.runs.items()},
            "hours": self.hours(),
            "verdicts": self.verdicts(),
        }


def project(scenario: Scenario, steps: Speeds) -> Projection:
    """Large throughout and small with a fix, each with DALI and with engine roc."""
    recorded = next((record for record in _records("throughput")), None)
    if recorded is None:
        raise InputError(f"no throughput record in {RESULTS}; make one: python -m benchmarks.throughput --json FILE")
    runs = {}
    for title, schedule, finetune_epochs in (
        ("large throughout", scenario.large, 0),
        ("small, then fixed", scenario.small, scenario.finetune_epochs),
    ):
        for engine in ENGINES:
            machine = Machine(scenario.gpus, scenario.cores, steps.values, loaders_of(recorded, engine))
            found = phases(machine, scenario.num_images, list(schedule), (scenario.test_res, finetune_epochs))
            runs[f"{title}, engine {engine}"] = found
    return Projection(scenario, steps, recorded["environment"]["cpu"], runs)

"""Projects training at full resolution and training small with fine-tuning, on a data set like ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fixres.projection.model import FORMULA, Phase, Speeds, phases
from fixres.projection.options import EstimateOptions
from fixres.projection.speeds import ENGINES, loader_speeds, step_speeds

_SCENARIO = ("model", "num_images", "gpus", "device", "test_res", "finetune_epochs")


@dataclass(frozen=True)
class Projection:
    """Projected runs."""

    options: EstimateOptions  # what was projected
    steps: Speeds  # of one device in training
    loaders: Mapping[str, Speeds]  # of one core, by engine
    # phases by title; the first is the usual training, the last the fast training with engine roc
    runs: Mapping[str, list[Phase]]

    def hours(self) -> dict[str, float]:
        """Hours of each run, by title."""
        return {title: sum(phase.seconds for phase in found) / 3600 for title, found in self.runs.items()}

    def conditions(self) -> list[str]:
        """Lines: the scenario, then each speed with its origin."""
        one = self.options
        found = [
            f"Projected, not measured: {one.model}, {one.num_images} images, {one.devices(one.gpus)}, "
            f"{one.num_cores} loader cores.",
            f"Steps of {one.devices(1)}, images/s: {self.steps.text(one.resolutions)}; {self.steps.origin}.",
        ]
        for engine, speeds in self.loaders.items():
            found.append(f"Engine {engine} on 1 core, images/s: {speeds.text(one.resolutions)}; {speeds.origin}.")
        return found

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
            runs.append(f"  projected {hours:.2f} h, {self.options.gpus * hours:.1f} device hours")
        return "\n".join([*self.conditions(), *runs, *self.verdicts(), f"Formula: {FORMULA}"])

    def as_json(self) -> dict[str, Any]:
        """As a record holds it: scenario, speeds with their origins, phases and hours of each run."""
        options = self.options
        schedules = {name: list(getattr(options, name).items()) for name in ("large", "small")}
        scenario = {name: getattr(options, name) for name in _SCENARIO} | {"cores": options.num_cores, **schedules}
        speeds = {"step": self.steps, **self.loaders}
        return {
            "projected": True,
            "formula": FORMULA,
            "conditions": self.conditions(),
            "scenario": scenario,
            "images_per_second": {name: dict(one.known) for name, one in speeds.items()},
            "origins": {name: one.origin for name, one in speeds.items()},
            "runs": {title: [asdict(phase) for phase in found] for title, found in self.runs.items()},
            "hours": self.hours(),
            "verdicts": self.verdicts(),
        }


def estimate(options: EstimateOptions) -> Projection:
    """The usual training and the fast one with fine-tuning, each with engines dali and roc.

    Args:
        options: what is projected, and where the speeds come from.

    Raises:
        InputError: a speed is not known; the message names the options that give it.

    Example:
        >>> given = {128: 2500.0, 160: 1700.0, 224: 900.0}
        >>> hours = estimate(EstimateOptions(gpus=8, step_speed=given)).hours()
        >>> round(hours["large, engine roc"], 2)
        0.79
    """
    loaders = loader_speeds(options.loader_record)  # before anything is measured
    steps = step_speeds(options)
    runs = {}
    for title, schedule, epochs in (
        ("large", options.large, 0),
        ("small, then fine-tuned", options.small, options.finetune_epochs),
    ):
        for engine in ENGINES:
            speeds = (steps.times(options.gpus), loaders[engine].times(options.num_cores))
            runs[f"{title}, engine {engine}"] = phases(
                *speeds, options.num_images, schedule, (options.test_res, epochs)
            )
    return Projection(options, steps, loaders, runs)

"""The clocks of a variant. A saving is claimed on the program clock and explained on the training clock."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up wall time by stage: "train", "finetune", "evaluate", "open", "save".

    Stages of one variant never overlap, and time outside them belongs to another variant or to nobody, so that two
    variants can
    take turns epoch by epoch and each still has its own clock.

    Attributes:
        seconds: wall time of each stage so far.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: str | None = None
        self._began = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time inside the `with` block towards `name`."""
        assert self._running is None, f"stage {name!r} inside stage {self._running!r}"
        self._running, self._began = name, time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - self._began
            self._running = None

    @contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """Counts the time inside the `with` block towards `name` and not towards the stage that is running, if any."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[name] += seconds
            self._began += seconds

    def state_dict(self) -> dict[str, float]:
        """The stages so far, with what the running one has taken."""
        running = {self._running: time.perf_counter() - self._began} if self._running else {}
        return {name: self.seconds[name] + running.get(name, 0.0) for name in {*self.seconds, *running}}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Adds what earlier processes of the run took."""
        for name, seconds in state.items():
            self.seconds[name] += seconds

    @property
    def train_seconds(self) -> float:
        """Training proper: epochs over the training images, waiting for data included."""
        return self.seconds["train"]

    @property
    def wall_seconds(self) -> float:
        """Everything that the variant took: opening loaders, training, evaluation, fix, checkpoints."""
        return sum(self.seconds.values())

    @property
    def paused_seconds(self) -> float:
        """What the training clock stood still for: program less training and fix."""
        return self.wall_seconds - self.seconds["train"] - self.seconds["finetune"]

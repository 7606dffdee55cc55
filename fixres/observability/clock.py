"""The clock of a variant. A saving is claimed on wall-clock time and explained on training time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up wall time by stage: "train", "finetune", "evaluate", "open", "save".

    Time outside of stages is not counted, so that variants which are trained in turn each have a clock of their own.

    Attributes:
        seconds: wall time of each stage so far, without the running stage.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: str | None = None
        self._began = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time of the `with` block as `name`. Inside another stage, that one pauses."""
        outer = self._running
        self._switch_to(name)
        try:
            yield
        finally:
            self._switch_to(outer)

    def _switch_to(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._running is not None:
            self.seconds[self._running] += now - self._began
        self._running, self._began = name, now

    def state_dict(self) -> dict[str, float]:
        """The stages so far, with the running one up to now."""
        self._switch_to(self._running)
        return dict(self.seconds)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Adds the time of earlier processes of the run."""
        for name, seconds in state.items():
            self.seconds[name] += seconds

    @property
    def train_seconds(self) -> float:
        """Epochs over the training images, waiting for data included."""
        return self.seconds["train"]

    @property
    def wall_seconds(self) -> float:
        """All stages: opening loaders, training, evaluation, fine-tuning, saving."""
        return sum(self.seconds.values())

    @property
    def paused_seconds(self) -> float:
        """Wall-clock time without training and fine-tuning."""
        return self.wall_seconds - self.seconds["train"] - self.seconds["finetune"]

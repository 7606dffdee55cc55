"""Energy of the GPUs while a block runs, from the power that NVIDIA's driver reports."""

from __future__ import annotations

import subprocess
import threading
import time
from itertools import pairwise
from types import TracebackType
from typing import Self

_QUERY = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
_JOULES = 3.6e6  # in a kilowatt-hour


def gpu_watts() -> float | None:
    """The present power of all GPUs of this machine; None if the driver does not tell."""
    try:
        output = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=10).stdout
        return sum(float(line) for line in output.split()) or None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


class EnergyMeter:
    """A context that samples the power of all GPUs every `period` seconds, also of those that the run does not use.

    Attributes:
        kilowatt_hours: the trapezoidal sum of the samples, after the block; None if the driver did not tell.
    """

    kilowatt_hours: float | None = None

    def __init__(self, period: float = 2.0) -> None:
        self._period, self._stop = period, threading.Event()
        self._samples: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if len(self._samples) > 1:
            self.kilowatt_hours = energy(self._samples) / _JOULES

    def _sample(self) -> None:
        while True:
            last = self._stop.is_set()
            watts = gpu_watts()
            if watts is None:
                return
            self._samples.append((time.perf_counter(), watts))
            if last:
                return
            self._stop.wait(self._period)


def energy(samples: list[tuple[float, float]]) -> float:
    """Joules between the first and the last sample (seconds, watts), by the trapezoidal rule."""
    return sum((later - earlier) * (one + other) / 2 for (earlier, one), (later, other) in pairwise(samples))

"""A trace of some training steps, and the share of their time that was spent waiting for data."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

_SKIPPED = 3  # the first steps compile, choose algorithms and fill caches


class StepProfiler:
    """Traces the steps after the first few of an epoch, once, into a file for chrome://tracing or Perfetto.

    It traces fewer than `num_steps` if the epoch ends before. `summary` is a line for people, empty before the trace.
    """

    def __init__(self, path: Path, num_steps: int, device: torch.device) -> None:
        self.summary = ""
        self._path, self._num_steps, self._device = path, num_steps, device
        self._step, self._profile, self._start, self._waited = 0, None, 0.0, 0.0

    def step(self, wait_seconds: float) -> None:
        """To be called before each step, with the seconds that the loader has waited so far."""
        if self._step == _SKIPPED and not self.summary:
            activities = [ProfilerActivity.CPU]
            if self._device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.start()
            self._start, self._waited = time.perf_counter(), wait_seconds
        self._step += 1
        if self._profile is not None and self._step > _SKIPPED + self._num_steps:
            self.finish(wait_seconds)

    def finish(self, wait_seconds: float) -> None:
        """Ends and writes the trace; does nothing if no trace is running."""
        if self._profile is None:
            return
        traced, self._profile = self._profile, None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - self._start
        traced.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        traced.export_chrome_trace(str(self._path))
        steps = max(1, min(self._step - _SKIPPED - 1, self._num_steps))
        self.summary = (
            f"{steps} steps of {1000 * seconds / steps:.1f} ms, {(wait_seconds - self._waited) / seconds:.0%} of it "
            f"waiting for data{self._gpu_share(traced, seconds)}; trace: {self._path}"
        )

    def _gpu_share(self, traced: profile, seconds: float) -> str:
        """On a GPU: the share of the time in which it ran a kernel or a copy."""
        if self._device.type != "cuda":
            return ""
        # Annotations, such as those of compiled regions, overlap with the kernels in them.
        events = [event for event in traced.events() if event.device_type.name == "CUDA"]
        ranges = [event.time_range for event in events if not event.is_user_annotation]
        return f", the GPU busy {_covered([(one.start, one.end) for one in ranges]) / 1e6 / seconds:.0%}"


def _covered(spans: list[tuple[float, float]]) -> float:
    """Total length covered by spans (start, end), which may overlap: kernels and copies run at the same time."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

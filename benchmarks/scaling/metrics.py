"""From the windows of scaling jobs to speeds, shares lost, efficiencies and bandwidths.

    lost to exchange = 1 - exchange / alone        within the rounds of a job
    lost to data     = 1 - fed / exchange
    efficiency(n)    = speed(n) / (n * speed(1))   between jobs of the same round
    bus bandwidth    = bytes / seconds * 2 (n - 1) / n

The last is that of nccl-tests (doc/PERFORMANCE.md there): what each link carries, so that it can be compared with the
hardware's speed for any number of processes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.harness.interleaved import Estimate, Window, estimate, paired_ratio

Job = dict[str, Any]
"""What `scaling_worker.measure` gives, and the `round` in which it ran."""


def bus_bandwidth(num_bytes: int, seconds: float, num_processes: int) -> float:
    """Bytes a second of an all-reduce over each link."""
    return num_bytes / seconds * 2 * (num_processes - 1) / num_processes


def results(jobs: list[Job], batches: dict[str, dict[int, int]]) -> list[dict[str, Any]]:
    """An entry for each mode and number of processes that has a finished job.

    Args:
        jobs: those that were finished.
        batches: images of all processes together, by mode and number of processes.
    """
    return [
        _result(jobs, mode, number, size)
        for mode, sizes in batches.items()
        for number, size in sizes.items()
        if _of(jobs, number)
    ]


def _result(jobs: list[Job], mode: str, number: int, batch_size: int) -> dict[str, Any]:
    speeds = {kind: _speeds(jobs, mode, number, kind) for kind in ("alone", "exchange", "fed")}
    found: dict[str, Any] = {"mode": mode, "processes": number, "batch_of_each": batch_size // number}
    for kind, values in speeds.items():
        found[kind] = _plain(estimate(values)) | {"rounds": values}
    found["lost_to_exchange"] = _lost(speeds, "exchange", "alone") if number > 1 else None
    found["lost_to_data"] = _lost(speeds, "fed", "exchange")
    for kind in ("exchange", "fed"):
        found[f"efficiency_{kind}"] = _efficiency(jobs, mode, number, kind)
    return found


def _of(jobs: list[Job], number: int) -> list[Job]:
    return [job for job in jobs if job["num_processes"] == number]


def _series(job: Job, mode: str, kind: str) -> list[float]:
    """Images a second of each window. A process alone exchanges nothing, and to it all modes are the same."""
    windows = job["windows"]
    if job["num_processes"] == 1:
        mode, kind = next(iter(windows)).partition("/")[0], "alone" if kind == "exchange" else kind
    return [Window(*window).images_per_second for window in windows[f"{mode}/{kind}"]]


def _speeds(jobs: list[Job], mode: str, number: int, kind: str) -> list[float]:
    return [speed for job in _of(jobs, number) for speed in _series(job, mode, kind)]


def _lost(speeds: dict[str, list[float]], one: str, other: str) -> dict[str, Any]:
    ratio = paired_ratio(speeds[one], speeds[other])
    return {"value": 1 - ratio.value, "interval": [1 - ratio.high, 1 - ratio.low]}


def _efficiency(jobs: list[Job], mode: str, number: int, kind: str) -> dict[str, Any] | None:
    """Against one process in the same rounds; None if it was never measured in one with this number."""
    medians = [{job["round"]: statistics.median(_series(job, mode, kind)) for job in _of(jobs, n)} for n in (number, 1)]
    shared = sorted(set(medians[0]) & set(medians[1]))
    if not shared:
        return None
    return _plain(paired_ratio([medians[0][k] for k in shared], [number * medians[1][k] for k in shared]))


def interconnect(jobs: list[Job]) -> list[dict[str, Any]]:
    """Seconds and bus bandwidth of each size of all-reduce."""
    return list(_interconnect(jobs))


def _interconnect(jobs: list[Job]) -> Iterator[dict[str, Any]]:
    for number in sorted({job["num_processes"] for job in jobs} - {1}):
        of = _of(jobs, number)
        for size in map(int, of[0]["all_reduce"]):
            seconds = estimate([value for job in of for value in job["all_reduce"][str(size)]])
            ends = [bus_bandwidth(size, value, number) for value in (seconds.value, seconds.high, seconds.low)]
            yield {
                "processes": number,
                "bytes": size,
                "seconds": seconds.value,
                "bus_bytes_per_second": ends[0],
                "interval": ends[1:],
            }


def _plain(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "interval": [found.low, found.high]}

"""Computes speeds, overheads, efficiencies and bandwidths from the windows of scaling jobs.

    sync overhead = 1 - sync / no_sync             within the rounds of a job
    data overhead = 1 - end_to_end / sync
    efficiency(n) = speed(n) / (n * speed(1))      between jobs of the same round
    bus bandwidth = bytes / seconds * 2 (n - 1) / n

The last formula is that of nccl-tests (doc/PERFORMANCE.md there): the load of each link, which can be compared with the
hardware's speed for any number of processes.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.harness.interleaved import Window
from benchmarks.harness.stats import Estimate, estimate, paired_ratio

Job = dict[str, Any]
"""The result of `worker.measure`, and the `round` of the job."""


def bus_bandwidth(num_bytes: int, seconds: float, num_processes: int) -> float:
    """Bytes/s of an all-reduce over each link."""
    return num_bytes / seconds * 2 * (num_processes - 1) / num_processes


def overhead(ratio: Estimate) -> dict[str, Any]:
    """The lost share of a speed, from its ratio to the speed without loss."""
    return {"value": 1 - ratio.value, "interval": [1 - ratio.high, 1 - ratio.low]}


def results(jobs: list[Job], batches: dict[str, dict[int, int]]) -> list[dict[str, Any]]:
    """An entry for each mode and number of processes with a finished job; `batches` as in `run.py`."""
    return [
        _result(jobs, mode, number, size)
        for mode, sizes in batches.items()
        for number, size in sizes.items()
        if _of(jobs, number)
    ]


def _result(jobs: list[Job], mode: str, number: int, batch_size: int) -> dict[str, Any]:
    speeds = {kind: _speeds(jobs, mode, number, kind) for kind in ("no_sync", "sync", "end_to_end")}
    found: dict[str, Any] = {"mode": mode, "processes": number, "batch_per_process": batch_size // number}
    for kind, values in speeds.items():
        found[kind] = estimate(values).as_json() | {"rounds": values}
    found["sync_overhead"] = overhead(paired_ratio(speeds["sync"], speeds["no_sync"])) if number > 1 else None
    found["data_overhead"] = overhead(paired_ratio(speeds["end_to_end"], speeds["sync"]))
    for kind in ("sync", "end_to_end"):
        found[f"efficiency_{kind}"] = _efficiency(jobs, mode, number, kind)
    return found


def _of(jobs: list[Job], number: int) -> list[Job]:
    return [job for job in jobs if job["num_processes"] == number]


def _series(job: Job, mode: str, kind: str) -> list[float]:
    """Images/s of each window. A single process has no gradient sync, and all modes are the same for it."""
    windows = job["windows"]
    if job["num_processes"] == 1:
        mode, kind = next(iter(windows)).partition("/")[0], "no_sync" if kind == "sync" else kind
    return [Window(*window).images_per_second for window in windows[f"{mode}/{kind}"]]


def _speeds(jobs: list[Job], mode: str, number: int, kind: str) -> list[float]:
    return [speed for job in _of(jobs, number) for speed in _series(job, mode, kind)]


def _efficiency(jobs: list[Job], mode: str, number: int, kind: str) -> dict[str, Any] | None:
    """Compared with one process in the same rounds; None without a common round."""
    medians = [{job["round"]: statistics.median(_series(job, mode, kind)) for job in _of(jobs, n)} for n in (number, 1)]
    shared = sorted(set(medians[0]) & set(medians[1]))
    if not shared:
        return None
    return paired_ratio([medians[0][k] for k in shared], [number * medians[1][k] for k in shared]).as_json()


def interconnect(jobs: list[Job]) -> list[dict[str, Any]]:
    """Seconds and bus bandwidth of each size of all-reduce."""
    found = []
    for number in sorted({job["num_processes"] for job in jobs} - {1}):
        same = _of(jobs, number)
        for size in map(int, same[0]["all_reduce"]):
            seconds = estimate([value for job in same for value in job["all_reduce"][str(size)]])
            value, low, high = (bus_bandwidth(size, one, number) for one in (seconds.value, seconds.high, seconds.low))
            one = {"processes": number, "bytes": size, "seconds": seconds.value}
            found.append(one | {"bus_bytes_per_second": value, "interval": [low, high]})
    return found

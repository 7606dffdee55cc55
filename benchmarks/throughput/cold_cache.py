"""Reading from storage: every engine's first pass over files that are not in the page cache."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from benchmarks.harness.interleaved import Turns, Window, paired_ratio, take_turns
from benchmarks.harness.page_cache import COLD, evict, files_below, resident_share
from benchmarks.throughput.engine_client import Remote
from benchmarks.throughput.engines import FLOOR

_WARM_UP_SECONDS = 0.1
COLD_NOTE = " Cold: the start of an epoch after its files were dropped from the page cache."


def measure_cold(
    remotes: dict[str, Remote], resolutions: list[int], num_rounds: int, most_seconds: float
) -> tuple[list[dict[str, Any]], bool]:
    """Engines in turns, each with its files evicted, then timed from the start of an epoch.

    Loaders stay open, because FFCV compiles its code for seconds when it is opened; each has begun an epoch at the
    resolution before its files are evicted.

    Returns:
        For each engine and resolution images a second, the ratio to the first engine, and the share of its files that
        was in memory when a window began (the largest of all rounds); and whether Ctrl-C ended it.
    """
    engines = {name: remote for name, remote in remotes.items() if name != FLOOR}
    found: list[dict[str, Any]] = []
    for remote in remotes.values():
        remote.rest()  # a page that anyone has mapped stays in memory
    for resolution in resolutions:
        shares = dict.fromkeys(engines, 0.0)

        def one(name: str, resolution: int = resolution, shares: dict[str, float] = shares) -> Window:
            shares[name] = max(shares[name], make_cold(engines[name], resolution))
            window = engines[name].epoch(most_seconds)
            engines[name].rest()
            return window

        runs = {name: lambda name=name: one(name) for name in engines}
        with tqdm(total=num_rounds * len(runs), desc=f"{resolution} px, cold", unit=" epochs", disable=None) as bar:
            turns = take_turns(runs, num_rounds, there_and_back=False, progress=bar.update)
        found += [_result(name, resolution, turns, shares[name]) for name in engines if turns.num_rounds]
        if turns.interrupted:
            return found, True
    return found, False


def make_cold(remote: Remote, resolution: int) -> float:
    """Leaves a loader that rests and whose files are not in memory; returns the share that is nevertheless."""
    remote.set_resolution(resolution)
    remote.window(_WARM_UP_SECONDS)
    remote.rest()
    files = files_below(remote.contender.path)
    evict(files)
    return resident_share(files)


def _result(name: str, resolution: int, turns: Turns, share: float) -> dict[str, Any]:
    speed, cpu = turns.speed(name), turns.cpu_per_image(name)
    first = next(iter(turns.rounds))
    ratio = paired_ratio(*([window.images_per_second for window in turns.rounds[one]] for one in (first, name)))
    return {
        "engine": name,
        "res": resolution,
        "cache": "cold",
        "images_per_second": speed.value,
        "interval": [speed.low, speed.high],
        "cpu_seconds_per_image": cpu and cpu.value,
        "against": first,
        "ratio": ratio.value,
        "ratio_interval": [ratio.low, ratio.high],
        "resident_share": share,
        "is_cold": share <= COLD,
    }

"""Reading from storage: the start of every engine's epoch with a cold page cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.page_cache import MAX_RESIDENT_SHARE, evict, files_below, resident_share
from benchmarks.throughput.engine_client import EngineClient
from benchmarks.throughput.engines import DECODE_BOUND

_WARM_UP_SECONDS = 0.1
COLD_CACHE_NOTE = " Cold: the start of an epoch after its files were dropped from the page cache."


def measure_cold_cache(
    clients: dict[str, EngineClient],
    resolutions: Sequence[int],
    num_rounds: int,
    max_seconds: float,
    found: list[dict[str, Any]],
) -> None:
    """Interleaved rounds; each engine is timed from the start of an epoch after its files were evicted.

    Loaders stay open, because FFCV compiles its code for seconds when it is opened. Each loader has begun an epoch at
    the resolution before its files are evicted.

    Adds to `found`, after Ctrl-C those so far: for each engine and resolution images/s, the ratio to the first engine,
    and the share of its files that was in memory when a window began (the largest of all rounds).

    Args:
        clients: opened engines by name.
        resolutions: sides in pixels.
        num_rounds: 1 or more.
        max_seconds: of an epoch, the rest of which is left out.
        found: the list to add to.
    """
    engines = {name: client for name, client in clients.items() if name != DECODE_BOUND}
    for client in clients.values():
        client.release_files()  # pages that any process has mapped stay in memory
    for resolution in resolutions:
        shares = dict.fromkeys(engines, 0.0)

        def one(name: str, resolution: int = resolution, shares: dict[str, float] = shares) -> Window:
            shares[name] = max(shares[name], evict_files(engines[name], resolution))
            window = engines[name].epoch(max_seconds)
            engines[name].release_files()
            return window

        runs = {name: lambda name=name: one(name) for name in engines}
        rounds = interleave(runs, num_rounds, f"{resolution} px, cold page cache", mirrored=False)
        found += [_result(name, resolution, rounds, shares[name]) for name in engines if rounds.num_rounds]
        if rounds.interrupted:
            raise KeyboardInterrupt


def evict_files(client: EngineClient, resolution: int) -> float:
    """Stops the loader's reading and evicts its files; returns the share of them that is still in memory."""
    client.set_resolution(resolution)
    client.window(_WARM_UP_SECONDS)
    client.release_files()
    files = files_below(client.engine.path)
    evict(files)
    return resident_share(files)


def _result(name: str, resolution: int, rounds: Rounds, share: float) -> dict[str, Any]:
    cpu, first = rounds.cpu_per_image(name), next(iter(rounds.windows))
    return {
        "engine": name,
        "res": resolution,
        "cache": "cold",
        **rounds.speed(name).as_json("images_per_second"),
        "cpu_seconds_per_image": cpu and cpu.value,
        "against": first,
        **rounds.ratio(first, name).as_json("ratio", "ratio_interval"),
        "resident_share": share,
        "is_cold": share <= MAX_RESIDENT_SHARE,
    }

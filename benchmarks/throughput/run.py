"""How many images per second each engine delivers, and the cost of an image, in interleaved rounds of one run.

python -m benchmarks.throughput --data DATA --engines roc,ffcv --train-res 128,160,224 --num-workers 2 --json FILE

DATA is a folder of photographs, a .beton file or a folder of .tar shards; it is converted once to the format of each
engine. Crops are RandomResizedCrop at scale (0.08, 1) with flips. Every engine has a process of its own, which is
stopped while others work. In each round all engines work twice for `--seconds`, in one order and its reverse. Ratios
are computed within a round, so other load on the machine cancels. Engines: roc, roc-dali, ffcv, dali (fused decode and
crop), dali-slice and torch are those of `fixres.pipelines.loaders`; roc-index is roc on a folder with an index of
checkpoints, roc-coarse with coarse levels, too; torchvision is a stock DataLoader over ImageFolder; torchvision-gpu
decodes batches on the GPU; simplejpeg and torchcodec are a DataLoader with those decoders; ffcv-raw is stock FFCV on
raw pixels of at most 256 px a side; dali-dynamic is DALI without a graph; turboloader, spdl and webdataset are those
packages as in their documentation. The name third-party stands for those loaders that are installed. Ctrl-C keeps the
results so far.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.interleaved import Rounds, interleave
from benchmarks.harness.options import PhotoOptions, WindowOptions, check_least, check_seconds
from benchmarks.harness.page_cache import files_below, load
from benchmarks.harness.records import Interruption, command, record
from benchmarks.throughput.cold_cache import COLD_CACHE_NOTE, measure_cold_cache
from benchmarks.throughput.engine_client import EngineClient
from benchmarks.throughput.engines import (
    DECODE_BOUND,
    INDEXED,
    THIRD_PARTY,
    Engine,
    check_engines,
    kind_of,
    with_third_party,
)
from benchmarks.throughput.tables import as_text

_WARM_UP_SECONDS = 0.3
_NOTE = (
    "Photographs of at most {max_side} px, quality {quality}{published}; RandomResizedCrop of scale 0.08 to 1; "
    "{threads} threads or workers each; {rounds} interleaved rounds, medians with 95 % intervals."
)


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions(PhotoOptions, WindowOptions):
    """Options of the benchmark."""

    engines: list[str] = field(default_factory=lambda: ["roc", "ffcv", "dali", "torch"])
    """Engines and third-party loaders to compare, see above."""
    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the training crops in pixels."""
    num_workers: int = 2
    """Threads or worker processes of each engine."""
    device: str = "cpu"
    """Where batches arrive: cpu or cuda[:n]."""
    rounds: int = 40
    seconds: float = 0.15
    batch_size: int = 64
    """Images of a batch."""
    jpeg_files: Literal["encoded", "published"] = "encoded"
    """What engines read that take JPEG files: "encoded" with --max-side and --quality as in the converted files, or the
    "published" photographs as they are."""
    cache: Literal["warm", "cold", "both"] = "warm"
    """State of the page cache; cold: the files are dropped from it before each epoch."""
    cold_cache_rounds: int = 3
    """Interleaved rounds with a cold page cache."""
    cold_cache_seconds: float = 3.0
    """Longest part of an epoch, in seconds, that is read with a cold page cache."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_workers=1, cold_cache_rounds=1)
        check_seconds(self, "cold_cache_seconds")
        check_engines([engine for engine in self.engines if engine != THIRD_PARTY])


def measure(options: ThroughputOptions) -> dict[str, Any]:
    """Measures all engines, resolutions and rounds; returns the record."""
    engines, missing = with_third_party(options.engines)
    if missing:
        sys.stderr.write(f"not installed and left out: {', '.join(missing)}\n")
    options = replace(options, engines=engines)
    environment = conditions(options.work_dir, options.cache)  # the engines' files are in work_dir
    files, options = _files(options)
    kinds = {name: kind_of(name, options.jpeg_files == "published") for name in options.engines}
    paths = {name: files.path(kind) for name, kind in kinds.items()}
    clients: dict[str, EngineClient] = {}
    found: dict[str, list[dict[str, Any]]] = {"results": [], "ratios": [], "cold_cache": []}
    with ExitStack() as stack, Interruption() as interruption:
        for engine in tqdm(_engines(paths, options), desc="opening", unit=" engines", disable=None):
            clients[engine.name] = stack.enter_context(EngineClient(engine, options.train_res[0]))
        _measure_opened(clients, options, found)
    return record(
        "throughput",
        options.settings(),
        environment,
        _note(options) + (COLD_CACHE_NOTE if found["cold_cache"] else ""),
        interruption.happened,
        **found,
        startup=[_startup(client) for name, client in clients.items() if name != DECODE_BOUND],
        file_bytes={name: files.num_bytes(kind, name in INDEXED) for name, kind in kinds.items()},
        num_different_images=files.num_different,
    )


def _measure_opened(
    clients: dict[str, EngineClient], options: ThroughputOptions, found: dict[str, list[dict[str, Any]]]
) -> None:
    """Adds all measurements to `found`; after Ctrl-C those so far."""
    if options.cache != "cold":
        for client in clients.values():
            load(files_below(client.engine.path))
        for resolution in options.train_res:
            rounds = _warm(clients, resolution, options)
            found["results"] += _results(clients, resolution, rounds)
            found["ratios"] += _ratios(options.engines, resolution, rounds)
            if rounds.interrupted:
                raise KeyboardInterrupt
    if options.cache != "warm":
        cold = (options.cold_cache_rounds, options.cold_cache_seconds)
        measure_cold_cache(clients, options.train_res, *cold, found["cold_cache"])


def _files(options: ThroughputOptions) -> tuple[BenchmarkFiles, ThroughputOptions]:
    """The engines' files; for a cold page cache, files without repetitions, and options that say so."""
    files = options.files()
    if options.cache == "warm" or files.num_different == options.num_images:
        return files, options
    # Repeated files would come from storage once, and then from memory.
    options = replace(options, num_images=files.num_different)
    return options.files(), options


def _note(options: ThroughputOptions) -> str:
    published = " (JPEG files as published)" if options.jpeg_files == "published" else ""
    return _NOTE.format(published=published, **options.settings())


def _engines(paths: dict[str, Path], options: ThroughputOptions) -> list[Engine]:
    """The engines, with the decode-only bound next to roc, because their ratio must be the most precise."""
    found = []
    for name, path in paths.items():
        found.append(Engine(name, path, options.batch_size, options.num_workers, options.device))
        if name == "roc":
            found.append(Engine(DECODE_BOUND, path, options.batch_size, options.num_workers, "cpu"))
    return found


def _warm(clients: dict[str, EngineClient], resolution: int, options: ThroughputOptions) -> Rounds:
    """All rounds at one resolution."""
    for client in clients.values():
        client.set_resolution(resolution)
        client.window(_WARM_UP_SECONDS)
    runs = {name: lambda client=client: client.window(options.seconds) for name, client in clients.items()}
    return interleave(runs, options.rounds, f"{resolution} px")


def _results(clients: dict[str, EngineClient], resolution: int, rounds: Rounds) -> list[dict[str, Any]]:
    if not rounds.num_rounds:
        return []
    found = []
    for name, client in clients.items():
        if name == DECODE_BOUND:
            continue
        costs: dict[str, Any] = {"bytes_per_image": None, "pixels_decoded_per_image": None}
        if not rounds.interrupted:  # after Ctrl-C the reply to an earlier request may still arrive
            client.sample_memory()
            costs = client.costs()
        found.append(_result(name, resolution, rounds) | costs)
    return found


def _result(name: str, resolution: int, rounds: Rounds) -> dict[str, Any]:
    cpu = rounds.cpu_per_image(name)
    share = rounds.ratio(name, DECODE_BOUND) if name == "roc" else None
    return {
        "engine": name,
        "res": resolution,
        "cache": "warm",
        **rounds.speed(name).as_json("images_per_second"),
        "rounds": rounds.speeds(name),
        "cpu_seconds_per_image": cpu and cpu.value,
        "cpu_interval": cpu and cpu.interval,
        "decode_bound_share": share and share.value,
        "decode_bound_share_interval": share and share.interval,
        "decode_bound_images_per_second": rounds.speed(DECODE_BOUND).value if share else None,
    }


def _ratios(engines: list[str], resolution: int, rounds: Rounds) -> list[dict[str, Any]]:
    """How many times as fast each engine is as each other."""
    pairs = permutations(engines, 2) if rounds.num_rounds else ()
    return [
        {"engine": one, "against": other, "res": resolution, **rounds.ratio(one, other).as_json("ratio")}
        for one, other in pairs
    ]


def _startup(client: EngineClient) -> dict[str, Any]:
    costs = ("first_batch_seconds", "memory_bytes_before", "memory_bytes_peak")
    return {"engine": client.engine.name, **{name: getattr(client, name) for name in costs}}


main = command(ThroughputOptions, __doc__, measure, as_text)

"""How many images a second each engine delivers, and what an image costs, all in one run, in turns.

python -m benchmarks.throughput --data DATA --engines roc,ffcv,dali,torch --res 128,160,224 --threads 2 --json FILE

DATA is a folder of photographs, a .beton file or a folder of .tar shards; what an engine cannot read is converted once.
RandomResizedCrop at scale (0.08, 1) with flips. Every engine has a process of its own, stopped while others work. In
each round all work twice for `--seconds`, in an order and its reverse; ratios are taken within a round, so what else
the machine does cancels. Engines: roc, roc-dali, ffcv, dali (fused decode and crop), dali-slice, torch: those of
`pipelines.loaders`; torchvision: a stock DataLoader over ImageFolder; ffcv-raw: stock FFCV on raw pixels of at most
256 px a side; spdl and webdataset: those packages as their documentation sets them up. Ctrl-C keeps what was measured.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.interleaved import Turns, take_turns
from benchmarks.harness.options import sides
from benchmarks.harness.page_cache import files_below, load
from benchmarks.harness.records import finish, record
from benchmarks.throughput.cold_cache import COLD_NOTE, measure_cold
from benchmarks.throughput.engine_client import Remote
from benchmarks.throughput.engines import FLOOR, KINDS, Contender, check_engines
from benchmarks.throughput.summary import as_text
from pipelines.runtime.cli import Parser, output_file
from pipelines.spec import InputError

CACHES = ("warm", "cold", "both")
_WARM_UP_SECONDS = 0.3
_NOTE = (
    "Photographs of at most {max_side} px, quality {quality}; RandomResizedCrop of scale 0.08 to 1; {threads} threads "
    "or workers each; {rounds} rounds in turns, medians with 95 % intervals."
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All engines, resolutions and rounds; returns the record."""
    environment = conditions(options.work_dir, options.cache)  # where the engines' files are
    files = _files(options)
    paths = {name: files.path(KINDS[name]) for name in options.engines}
    results, ratios, cold, interrupted = [], [], [], False
    with ExitStack() as stack:
        remotes: dict[str, Remote] = {}
        try:
            for contender in tqdm(_contenders(paths, options), desc="opening", unit=" engines", disable=None):
                remotes[contender.engine] = stack.enter_context(Remote(contender, options.res[0]))
            if options.cache != "cold":
                for path in paths.values():
                    load(files_below(path))
            for resolution in options.res if options.cache != "cold" else ():
                turns = _warm(remotes, resolution, options)
                results += _results(remotes, resolution, turns)
                ratios += _ratios(options.engines, resolution, turns)
                if turns.interrupted:
                    raise KeyboardInterrupt
            if options.cache != "warm":
                cold, interrupted = measure_cold(remotes, options.res, options.cold_rounds, options.cold_seconds)
        except KeyboardInterrupt:
            interrupted = True
    return record(
        "throughput",
        target=options.json,
        note=_NOTE.format(**vars(options)) + (COLD_NOTE if cold else ""),
        settings=options,
        environment=environment,
        partial=interrupted,
        results=results,
        ratios=ratios,
        cold=cold,
        opening=[_opening(remote) for name, remote in remotes.items() if name != FLOOR],
        file_bytes={name: files.num_bytes(KINDS[name]) for name in options.engines},
        num_different_images=files.num_different,
    )


def _files(options: argparse.Namespace) -> BenchmarkFiles:
    shape = options.max_side, options.quality
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, *shape)
    if options.cache == "warm" or files.num_different == options.num_images:
        return files
    options.num_images = files.num_different  # repeated files would be read from storage once, and then from memory
    return BenchmarkFiles(options.data, options.work_dir, options.num_images, *shape)


def _contenders(paths: dict[str, Path], options: argparse.Namespace) -> list[Contender]:
    """The engines, and beside roc, because their ratio must be the surest, the floor."""
    found = []
    for name, path in paths.items():
        found.append(Contender(name, path, options.batch_size, options.threads, options.device))
        if name == "roc":
            found.append(Contender(FLOOR, path, options.batch_size, options.threads, "cpu"))
    return found


def _warm(remotes: dict[str, Remote], resolution: int, options: argparse.Namespace) -> Turns:
    """All rounds at one resolution."""
    for remote in remotes.values():
        remote.set_resolution(resolution)
        remote.window(_WARM_UP_SECONDS)
    runs = {name: lambda remote=remote: remote.window(options.seconds) for name, remote in remotes.items()}
    total = 2 * options.rounds * len(runs)
    with tqdm(total=total, desc=f"{resolution} px", unit=" windows", disable=None) as bar:
        return take_turns(runs, options.rounds, progress=bar.update)


def _results(remotes: dict[str, Remote], resolution: int, turns: Turns) -> list[dict[str, Any]]:
    if not turns.num_rounds:
        return []
    found = []
    for name, remote in remotes.items():
        if name == FLOOR:
            continue
        costs: dict[str, Any] = {"bytes_per_image": None, "pixels_decoded_per_image": None}
        if not turns.interrupted:  # else its reply to another question is still on the way
            remote.look_at_memory()
            costs = remote.costs()
        found.append(_result(name, resolution, turns) | costs)
    return found


def _result(name: str, resolution: int, turns: Turns) -> dict[str, Any]:
    speed, cpu = turns.speed(name), turns.cpu_per_image(name)
    share = turns.ratio(name, FLOOR) if name == "roc" else None
    return {
        "engine": name,
        "res": resolution,
        "cache": "warm",
        "images_per_second": speed.value,
        "interval": [speed.low, speed.high],
        "rounds": [window.images_per_second for window in turns.rounds[name]],
        "cpu_seconds_per_image": cpu and cpu.value,
        "cpu_interval": cpu and [cpu.low, cpu.high],
        "floor_share": share and share.value,
        "floor_share_interval": share and [share.low, share.high],
        "floor_images_per_second": turns.speed(FLOOR).value if share else None,
    }


def _ratios(engines: list[str], resolution: int, turns: Turns) -> list[dict[str, Any]]:
    """How many times faster each engine is than each other."""
    pairs = [(one, other) for one in engines for other in engines if one != other and turns.num_rounds]
    found = [(one, other, turns.ratio(one, other)) for one, other in pairs]
    return [
        {"engine": one, "against": other, "res": resolution, "ratio": ratio.value, "interval": [ratio.low, ratio.high]}
        for one, other, ratio in found
    ]


def _opening(remote: Remote) -> dict[str, Any]:
    return {
        "engine": remote.contender.engine,
        "first_batch_seconds": remote.first_batch_seconds,
        "memory_bytes_before": remote.memory_bytes_before,
        "memory_bytes_peak": remote.memory_bytes_peak,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the benchmark and the tool that wraps it have in common."""
    parser.add_argument("--engines", default="roc,ffcv,dali,torch", help="%(default)s; see above")
    parser.add_argument("--res", default="128,160,224", help="output sides in pixels (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads or workers of each engine (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where batches arrive, cpu or cuda[:n] (%(default)s)")
    parser.add_argument("--cache", choices=CACHES, default="warm", help="page cache (%(default)s)")
    parser.add_argument("--json", type=output_file, help="where the record goes")
    parser.add_argument("--rounds", type=int, default=40, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.15, help="least length of a window (%(default)s)")
    parser.add_argument("--cold-rounds", type=int, default=3, help="rounds with a cold page cache (%(default)s)")
    parser.add_argument("--cold-seconds", type=float, default=3.0, help="most of an epoch then (%(default)s)")
    parser.add_argument("--num-images", type=int, default=1500, help="size of the data set, images are repeated")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-side", type=int, default=500)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--work-dir", type=Path, default=Path("data/throughput"), help="where files are made and kept")


def check(options: argparse.Namespace) -> argparse.Namespace:
    """Options with their lists taken apart; raises InputError for those that cannot be."""
    options.engines = check_engines(list(dict.fromkeys(options.engines.split(","))))
    options.res = sides(options.res)
    for name in ("rounds", "cold_rounds", "threads", "batch_size"):
        if getattr(options, name) < 1:
            raise InputError(f"{name}={getattr(options, name)} must be at least 1")
    if options.num_images < options.batch_size:
        raise InputError(
            f"num_images={options.num_images} do not fill a batch of {options.batch_size}; use more images"
        )
    if not (options.seconds > 0 and options.cold_seconds > 0):  # a NaN fails
        raise InputError("seconds and cold_seconds must be above 0")
    return options


def main() -> None:
    """Measures, prints the tables, writes the record."""
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="photographs, a .beton file, or .tar shards")
    add_arguments(parser)
    options = check(parser.parse_args())
    content = measure(options)
    print(as_text(content))
    finish(content, options.json)

"""How many images a second each engine delivers, all in one run, in turns.

python -m benchmarks.throughput --data DIR --engines roc,ffcv,dali,torch --res 128,160,224 --threads 2 --json FILE

RandomResizedCrop at scale (0.08, 1) with flips, batches on the CPU. In each round every engine works for at least
`--seconds`; ratios are taken within a round, so what else the machine does cancels as far as it lasts a round. Engines:
roc, roc-dali, ffcv, dali (fused decode and crop), dali-slice, torch: those of `pipelines.loaders`; torchvision: a stock
DataLoader over ImageFolder; ffcv-raw: stock FFCV on raw pixels of at most 256 px a side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.files import BenchmarkFiles
from benchmarks.floor import Floor
from pipelines.console import run
from pipelines.loaders import open_loader
from pipelines.spec import InputError, LoaderConfig, TrainCrop

_KINDS = {"roc": "roc", "ffcv": "ffcv", "ffcv-raw": "raw", "dali": "folder", "torch": "folder", "torchvision": "folder"}
_KINDS |= {"roc-dali": "roc", "dali-slice": "folder"}
_SEED = 0
_NOTE = (
    "Photographs of at most {max_side} px, quality {quality}; RandomResizedCrop of scale 0.08 to 1; {threads} threads "
    "or workers each; {rounds} rounds in turns, medians (lowest to highest); files in the page cache."
)


class Contender:
    """One engine, opened once; `images_per_second` measures a window of whole epochs."""

    def __init__(self, engine: str, path: Path, batch_size: int, num_threads: int, device: str) -> None:
        self.engine = engine
        options = {"shuffle": True, "drop_last": True, "seed": _SEED, "num_workers": num_threads, "device": device}
        self._config = LoaderConfig(path, TrainCrop(), 128, batch_size, **options)
        self._epoch = 0
        if engine == "torchvision":
            self._loader = _StockDataLoader(self._config)
        else:
            self._loader = open_loader(engine.removesuffix("-raw"), self._config)

    def images_per_second(self, resolution: int, min_seconds: float) -> float:
        """Epochs until `min_seconds` have passed; start and end of an epoch count, as in training."""
        self._loader.set_resolution(resolution)
        start, num_images = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < min_seconds:
            self._loader.set_epoch(self._epoch)
            self._epoch += 1
            num_images += sum(len(batch[1]) for batch in self._loader)
            if self._config.device != "cpu":
                torch.cuda.synchronize(self._config.device)
        return num_images / seconds

    def costs(self, resolution: int) -> dict[str, float | None]:
        """Encoded bytes and decoded pixels per image, over one epoch."""
        counters = getattr(self._loader, "counters", None)
        if counters is None:
            return {"bytes_per_image": None, "pixels_decoded_per_image": None}
        before = counters.num_images, counters.bytes_read, counters.pixels_decoded
        self.images_per_second(resolution, 0.01)
        num = counters.num_images - before[0]
        pixels = None if counters.pixels_decoded is None else (counters.pixels_decoded - before[2]) / num
        read = None if counters.bytes_read is None else (counters.bytes_read - before[1]) / num
        raw = self.engine == "ffcv-raw"  # nothing is decoded there
        return {"bytes_per_image": read, "pixels_decoded_per_image": 0 if raw else pixels}

    def close(self) -> None:
        self._loader.close()


class _StockDataLoader:
    """torchvision's ImageFolder and transforms in torch's DataLoader, as its reference scripts put them together."""

    def __init__(self, config: LoaderConfig) -> None:
        self._config, self._loader, self._resolution = config, None, 0
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        torch.manual_seed(epoch)

    def set_resolution(self, resolution: int) -> None:
        from torchvision import datasets, transforms

        if resolution == self._resolution:
            return
        self.close()
        steps = [transforms.RandomResizedCrop(resolution), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        data = datasets.ImageFolder(str(self._config.path), transforms.Compose(steps))
        workers = self._config.num_workers
        self._loader = torch.utils.data.DataLoader(
            data, self._config.batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
        )
        self._resolution = resolution

    def __iter__(self) -> Any:
        device = self._config.device
        return ((images.to(device), labels.to(device)) for images, labels in self._loader)

    def close(self) -> None:
        self._loader, self._resolution = None, 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds; returns what the JSON file holds."""
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, options.max_side, options.quality)
    paths = {name: files.path(_KINDS[name]) for name in options.engines}
    contenders = [
        Contender(name, path, options.batch_size, options.threads, options.device) for name, path in paths.items()
    ]
    floor = Floor(paths["roc"], options.threads) if "roc" in paths else None
    results, ratios = [], []
    for resolution in options.res:
        speeds = _rounds(contenders, floor, resolution, options)
        results += [_result(c, resolution, speeds) for c in contenders]
        ratios += _ratios(options.engines, resolution, speeds)
        print(_table(results, ratios, resolution), flush=True)
    for contender in contenders:
        contender.close()
    return {
        "version": 1,
        "kind": "throughput",
        "name": options.json.stem if options.json else "throughput",
        "note": _NOTE.format(**vars(options)),
        "results": results,
        "ratios": ratios,
        "file_bytes": {name: files.num_bytes(_KINDS[name]) for name in options.engines},
        "opening": [
            _opening(name, files.path(_KINDS[name]), options) for name in options.engines if name in ("roc", "ffcv")
        ],
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
        "environment": environment(),
    }


def _rounds(
    contenders: list[Contender], floor: Floor | None, resolution: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Images per second of each engine, and of the floor, in each round."""
    runs: dict[str, Callable[[float], float]] = {}
    for contender in contenders:
        runs[contender.engine] = lambda seconds, c=contender: c.images_per_second(resolution, seconds)
        if contender.engine == "roc" and floor is not None:  # its neighbour, because their ratio must be the surest
            runs["floor"] = lambda seconds: floor.images_per_second(resolution, 0, _SEED, seconds)
    for warm_up in runs.values():
        warm_up(0.2)
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.rounds):
        names = list(runs)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            speeds[name].append(runs[name](options.seconds))
    return speeds


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _paired(speeds: dict[str, list[float]], one: str, other: str) -> dict[str, float]:
    return _spread([a / b for a, b in zip(speeds[one], speeds[other], strict=True)])


def _result(contender: Contender, resolution: int, speeds: dict[str, list[float]]) -> dict[str, Any]:
    name, spread = contender.engine, _spread(speeds[contender.engine])
    share = _paired(speeds, name, "floor") if name == "roc" and "floor" in speeds else None
    return {
        "engine": name,
        "res": resolution,
        "images_per_second": spread["median"],
        "spread": [spread["lowest"], spread["highest"]],
        "rounds": speeds[name],
        **contender.costs(resolution),
        "floor_share": share and share["median"],
        "floor_share_spread": share and [share["lowest"], share["highest"]],
        "floor_images_per_second": statistics.median(speeds["floor"]) if share else None,
    }


def _ratios(engines: list[str], resolution: int, speeds: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"engine": one, "against": other, "res": resolution, **_paired(speeds, one, other)}
        for one in engines
        for other in engines
        if one != other
    ]


def _table(results: list[dict[str, Any]], ratios: list[dict[str, Any]], resolution: int) -> str:
    lines = [f"\n{resolution} px      images/s   (lowest  highest)   KB/image  pixels/image   roc is faster by"]
    for result in (r for r in results if r["res"] == resolution):
        name, (low, high) = result["engine"], result["spread"]
        kilobytes, pixels = (result[key] for key in ("bytes_per_image", "pixels_decoded_per_image"))
        faster = [r for r in ratios if (r["engine"], r["against"], r["res"]) == ("roc", name, resolution)]
        line = f"{name:12} {result['images_per_second']:8.0f}   ({low:6.0f}  {high:6.0f})   "
        line += "      -" if kilobytes is None else f"{kilobytes / 1000:7.1f}"
        line += "            -" if pixels is None else f"   {pixels:10.0f}"
        for ratio in faster:
            line += f"      {ratio['median']:5.2f}  ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
        lines.append(line)
        if result["floor_share"]:
            low, high = result["floor_share_spread"]
            lines.append(
                f"{'  floor':12} {result['floor_images_per_second']:8.0f}   decoding the same crops alone; "
                f"roc reaches {result['floor_share']:.2f} of it ({low:.2f} to {high:.2f})"
            )
    return "\n".join(lines)


def _opening(engine: str, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from opening to the first batch, and peak memory beside the page cache, in a process of its own."""
    code = f"""
import json, time
from pathlib import Path
from pipelines.loaders import open_loader
from pipelines.spec import LoaderConfig, TrainCrop
path, crop = Path({str(path)!r}), TrainCrop()
config = LoaderConfig(path, crop, {options.res[0]}, {options.batch_size}, shuffle=True, num_workers={options.threads})
def anonymous():
    lines = dict(line.split(":") for line in open("/proc/self/status").read().splitlines())
    return int(lines["RssAnon"].split()[0])
before, start = anonymous(), time.perf_counter()
loader = open_loader({engine!r}, config)
batches = iter(loader)
next(batches)
first, peak = time.perf_counter() - start, anonymous()
for resolution in {options.res}:
    loader.set_resolution(resolution)
    for _ in loader:
        peak = max(peak, anonymous())
print(json.dumps([first, before, peak]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, before, peak = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{engine}: first batch {first:.2f} s after opening, {peak / 1e3:.0f} MB at most beside the page cache, "
        f"{before / 1e3:.0f} MB of them torch and Python before opening"
    )
    return {
        "engine": engine,
        "first_batch_seconds": first,
        "anonymous_bytes_before": before * 1024,
        "anonymous_bytes_peak": peak * 1024,
    }


def environment() -> dict[str, Any]:
    """Conditions of a measurement."""
    from fixres.environment import capture

    return capture() | {"load_average": os.getloadavg(), "written": time.strftime("%Y-%m-%d %H:%M")}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--engines", default="roc,ffcv,dali,torch", help="%(default)s; see above")
    parser.add_argument("--res", default="128,160,224", help="output sides in pixels (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads or workers of each engine (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where batches arrive, cpu or cuda[:n] (%(default)s)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="least length of a window (%(default)s)")
    parser.add_argument("--num-images", type=int, default=1500, help="size of the data set, images are repeated")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-side", type=int, default=500)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--work-dir", type=Path, default=Path("data/throughput"), help="where files are made and kept")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    options.res = [int(side) for side in options.res.split(",")]
    for engine in options.engines:
        if engine not in _KINDS:
            raise InputError(f"engine={engine!r} cannot be measured; choose from {', '.join(_KINDS)}")
    return options


def main() -> None:
    """Measures, prints the table, writes the file."""
    options = _parse()
    record = measure(options)
    sizes = record["file_bytes"]
    if {"roc", "ffcv"} <= set(sizes):
        print(f"\nfile size: roc {sizes['roc'] / sizes['ffcv']:.3f} times ffcv's JPEG file")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run(main)

"""How far engines are from Pillow: numbers, a page with figures and enlarged crops, and the record.

python -m benchmarks.loaders.fidelity --data PHOTOS --res 128,160,224 --out fidelity

The reference is engine `torch` (Pillow) on the engine's own file. Engines that take the crop from us are compared on
training crops as well; those that draw their own on center crops only. Engine `roc` is compared twice more: from full
levels, and from the coarser levels that it may choose. Ctrl-C keeps the resolutions that were finished.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.docs.render import fidelity_table
from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.options import sides
from benchmarks.harness.records import leave_if_partial, record
from benchmarks.loaders.agreement import Agreement, agreement
from benchmarks.loaders.fidelity_report import write_fidelity_report
from benchmarks.throughput.engines import KINDS, check_engines
from benchmarks.throughput.summary import columns
from pipelines.loaders import ENGINES, is_installed
from pipelines.loaders.pillow import TorchLoader
from pipelines.loaders.roc import RocLoader
from pipelines.runtime.atomic_files import write_json
from pipelines.runtime.cli import Parser, number_or_inf, output_file, output_folder
from pipelines.runtime.exit_codes import run
from pipelines.spec import MIN_ZOOM, InputError, LoaderConfig, TrainCrop


def compare(path: Path, resolution: int, min_zoom: float, num_epochs: int) -> dict[str, np.ndarray]:
    """Crops of engine roc and of Pillow at the same boxes.

    Returns:
        For each crop: mean absolute difference and largest difference in gray levels, PSNR in dB, whether it came from
        a coarser level.
    """
    config = LoaderConfig(path, TrainCrop(), resolution, 50, num_workers=2, min_zoom=min_zoom)
    rows, coarse = [], []
    with RocLoader(config) as ours, TorchLoader(config) as theirs:
        for epoch in range(num_epochs):
            ours.set_epoch(epoch)
            theirs.set_epoch(epoch)
            for got, wanted in zip(ours, theirs, strict=True):
                difference = np.abs(got.images.numpy().astype(np.float32) - wanted.images.numpy())
                squares = np.maximum((difference**2).mean((1, 2, 3)), 1e-6)
                psnr = 10 * np.log10(255**2 / squares)
                rows.append(np.column_stack([difference.mean((1, 2, 3)), difference.max((1, 2, 3)), psnr]))
                coarse.append(ours.last_shifts > 0)
    mean, largest, psnr = np.concatenate(rows).T
    return {"mean": mean, "largest": largest, "psnr": psnr, "coarse": np.concatenate(coarse)}


def summary(resolution: int, full: dict[str, np.ndarray], chosen: dict[str, np.ndarray]) -> dict[str, Any]:
    """The figures of engine roc at one resolution."""
    psnr = chosen["psnr"][chosen["coarse"]]
    return {
        "res": resolution,
        "num_crops": len(full["mean"]),
        "full_level_mean_difference": float(full["mean"].mean()),
        "full_level_worst_mean_difference": float(full["mean"].max()),
        "full_level_largest_difference": float(full["largest"].max()),
        "coarse_share": float(chosen["coarse"].mean()),
        "coarse_mean_psnr": float(psnr.mean()) if len(psnr) else None,
        "coarse_psnr_5th_percentile": float(np.percentile(psnr, 5)) if len(psnr) else None,
        "coarse_worst_psnr": float(psnr.min()) if len(psnr) else None,
    }


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Agreement], dict[int, dict[str, np.ndarray]]]:
    """The record; the agreements with their worst crops; and roc's crops by resolution, for histograms."""
    environment = conditions(options.data)
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, 500, 90)
    figures, found, chosen, interrupted = [], [], {}, False
    total = len(options.res) * (len(options.engines) + 1)
    try:
        with tqdm(total=total, desc="comparing", unit=" engines", disable=None) as bar:
            for resolution in options.res:
                full = compare(files.path("roc"), resolution, float("inf"), options.num_epochs)
                at_will = compare(files.path("roc"), resolution, options.min_zoom, options.num_epochs)
                figures.append(summary(resolution, full, at_will))
                chosen[resolution] = at_will | {"full_mean": full["mean"]}
                bar.update()
                for engine in options.engines:
                    found += agreement(engine, files.path(KINDS[engine]), resolution, options.min_zoom, options.device)
                    bar.update()
    except KeyboardInterrupt:
        interrupted = True
    content = record(
        "fidelity",
        target=options.json,
        note=f"{options.num_images} photographs at most 500 px, quality 90; min_zoom {options.min_zoom}.",
        settings=options,
        environment=environment,
        partial=interrupted,
        figures=figures,
        engines=[one.as_json() for one in found],
    )
    return content, found, chosen


def as_text(content: dict[str, Any]) -> str:
    """Tables for the terminal."""
    heads = [
        "engine",
        "crops",
        "px",
        "num",
        "mean difference",
        "worst mean",
        "mean PSNR, dB",
        "worst PSNR",
        "labels agree",
    ]
    rows = [
        [one["engine"], one["crops"], str(one["res"]), str(one["num_crops"]), f"{one['mean_difference']:.2f}",
         f"{one['worst_mean_difference']:.2f}", f"{one['mean_psnr']:.1f}", f"{one['worst_psnr']:.1f}",
         f"{100 * one['label_agreement']:.1f} %"]
        for one in content["engines"]
    ]  # fmt: skip
    return columns([heads, *rows]) + ("\n\n" + fidelity_table(content) if content["figures"] else "")


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="photographs, a .beton file, or .tar shards")
    parser.add_argument("--engines", help="of pipelines.loaders (all that are installed)")
    parser.add_argument("--res", default="128,160,224", help="output sides in pixels (%(default)s)")
    parser.add_argument("--out", type=output_folder, required=True, help="folder for the report")
    parser.add_argument("--json", type=output_file, help="where the record goes (fidelity.json in that folder)")
    parser.add_argument("--device", default="cpu", help="where the engines' batches arrive (%(default)s)")
    parser.add_argument("--num-images", type=int, default=500)
    parser.add_argument("--num-epochs", type=int, default=1, help="crops of each image (%(default)s)")
    parser.add_argument("--min-zoom", type=number_or_inf, default=MIN_ZOOM, help="the quality knob (%(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("data/throughput"), help="where files are made and kept")
    options = parser.parse_args()
    usual = [engine for engine in ENGINES if engine != "torch" and is_installed(engine)]
    options.engines = check_engines(options.engines.split(",") if options.engines else usual)
    if not set(options.engines) <= set(ENGINES) - {"torch"}:
        raise InputError(f"engines={','.join(options.engines)}: choose from {', '.join(ENGINES[:2] + ENGINES[3:])}")
    options.res, options.json = sides(options.res), options.json or options.out / "fidelity.json"
    if options.num_images < 1 or options.num_epochs < 1:
        raise InputError("num_images and num_epochs must be at least 1")
    return options


def main() -> None:
    """Parses the command line, compares, writes page and record."""
    options = _parse()
    content, found, chosen = measure(options)
    write_json(options.json, content)
    write_fidelity_report(content, found, chosen, options.out / "report.html")
    print(as_text(content))
    print(f"\n{options.out / 'report.html'}")
    leave_if_partial(content, options.json)


if __name__ == "__main__":
    run(main)

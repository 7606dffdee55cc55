"""How far engines are from Pillow: numbers, a page with plots and enlarged crops, and the record.

python -m benchmarks.loaders.fidelity --data PHOTOS --res 128,160,224 --out fidelity

The reference is engine `torch` (Pillow) on the engine's own file. Engines that accept our boxes are also compared on
training crops; engines that draw their own boxes are compared on center crops only. Engine `roc` is compared twice
more: with full levels only, and with the coarser levels that it may choose. Ctrl-C keeps the resolutions that were
finished.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.options import WORK_DIR, add_options, at_least, names
from benchmarks.harness.records import Interruption, leave_if_partial, record
from benchmarks.loaders.agreement import Agreement, agreement
from benchmarks.loaders.fidelity_report import write_fidelity_report
from benchmarks.loaders.tables import fidelity_text
from benchmarks.throughput.engines import KINDS, check_engines
from fixres.pipelines.loaders import ENGINES, is_installed
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.cli import Parser, number_or_inf, output_folder
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import MIN_ZOOM, EvalCrop, InputError, LoaderConfig, TrainCrop

_NOTE = "{num_images} photographs at most 500 px, quality 90; min_zoom {min_zoom}."


def summary(full: Agreement, chosen: Agreement) -> dict[str, Any]:
    """The numbers of engine roc at one resolution, from its full levels and from the levels that it chose."""
    psnr = chosen.psnr[chosen.coarse]
    return {
        "res": full.res,
        "num_crops": len(full.mean),
        "full_level_mean_difference": float(full.mean.mean()),
        "full_level_worst_mean_difference": float(full.mean.max()),
        "full_level_largest_difference": float(full.largest.max()),
        "coarse_share": float(chosen.coarse.mean()),
        "coarse_mean_psnr": float(psnr.mean()) if len(psnr) else None,
        "coarse_psnr_5th_percentile": float(np.percentile(psnr, 5)) if len(psnr) else None,
        "coarse_worst_psnr": float(psnr.min()) if len(psnr) else None,
    }


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Agreement], list[Agreement]]:
    """Returns the record, all agreements with their worst crops, and engine roc's crops at each resolution."""
    environment = conditions(options.data)
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, 500, 90)
    figures, found, roc = [], [], []
    total = len(options.res) * (len(options.engines) + 1)
    with Interruption() as interruption, tqdm(total=total, desc="comparing", unit=" engines", disable=None) as bar:
        for side in options.res:
            crops = {zoom: LoaderConfig(files.path("roc"), TrainCrop(), side, 50, min_zoom=zoom)
                     for zoom in (math.inf, options.min_zoom)}  # fmt: skip
            full, chosen = (agreement("roc", crops[zoom], options.num_epochs) for zoom in (math.inf, options.min_zoom))
            figures.append(summary(full, chosen))
            roc.append(chosen)
            bar.update()
            for engine in options.engines:
                found += _both_crops(engine, files.path(KINDS[engine]), side, options)
                bar.update()
    content = record(
        "fidelity",
        vars(options),
        environment,
        _NOTE.format(**vars(options)),
        interruption.happened,
        figures=figures,
        engines=[one.as_json() for one in found],
    )
    return content, found, roc


def _both_crops(engine: str, path: Path, side: int, options: argparse.Namespace) -> list[Agreement]:
    """An engine on training crops, if it accepts our boxes, and on center crops."""
    settings = {"min_zoom": options.min_zoom, "device": options.device}
    configs = [LoaderConfig(path, crop, side, 50, **settings) for crop in (TrainCrop(), EvalCrop())]
    return [one for config in configs if (one := agreement(engine, config)) is not None]


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_options(parser, data=..., res="128,160,224", num_images=500, device="cpu", work_dir=WORK_DIR, json=None)
    parser.add_argument("--engines", type=names, help="of fixres.pipelines.loaders (all that are installed)")
    parser.add_argument("--out", type=output_folder, required=True, help="folder for the page, and for fidelity.json")
    parser.add_argument("--num-epochs", type=at_least(1), default=1, help="crops of each image (%(default)s)")
    parser.add_argument("--min-zoom", type=number_or_inf, default=MIN_ZOOM, help="see LoaderConfig (%(default)s)")
    options = parser.parse_args()
    others = [engine for engine in ENGINES if engine != "torch"]
    options.engines = check_engines(options.engines or [engine for engine in others if is_installed(engine)])
    if unknown := [engine for engine in options.engines if engine not in others]:
        raise InputError(f"engines={','.join(unknown)}: choose from {', '.join(others)}")
    options.json = options.json or options.out / "fidelity.json"
    return options


def main() -> None:
    """Compares, writes page and record, prints the tables."""
    options = _parse()
    content, found, roc = measure(options)
    write_json(options.json, content)
    write_fidelity_report(content, found, roc, options.out / "report.html")
    print(fidelity_text(content))
    print(f"\n{options.out / 'report.html'}")
    leave_if_partial(content, options.json)


if __name__ == "__main__":
    run(main)

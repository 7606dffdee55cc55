"""How far engines are from Pillow: numbers, a page with plots and enlarged crops, and the record.

python -m benchmarks.loaders.fidelity --data PHOTOS --train-res 128,160,224 --output fidelity

The reference is engine `torch` (Pillow) on the engine's own file. Engines that accept our boxes are also compared on
training crops; engines that draw their own boxes are compared on center crops only. Engine `roc` is compared twice
more: with full levels only, and with the coarser levels that it may choose. Ctrl-C keeps the resolutions that were
finished.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import PhotoOptions, check_least
from benchmarks.harness.records import Interruption, record, show
from benchmarks.loaders.agreement import Agreement, agreement
from benchmarks.loaders.fidelity_report import write_fidelity_report
from benchmarks.loaders.tables import fidelity_text
from benchmarks.throughput.engines import KINDS, check_engines
from fixres.config.parsing import parse
from fixres.pipelines.loaders import ENGINES, is_installed
from fixres.pipelines.runtime.atomic_files import check_target
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, EvalCrop, InputError, LoaderConfig, TrainCrop

_ENGINES = [engine for engine in ENGINES if engine != "torch"]
_GPU = "roc-gpu"
_NOTE = "{num_images} photographs at most {max_side} px, quality {quality}; min_zoom {min_zoom}."


@dataclass(frozen=True, kw_only=True)
class FidelityOptions(PhotoOptions):
    """Options of the benchmark."""

    output: Path
    """Folder for the page, and for fidelity.json without json."""
    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the crops in pixels."""
    num_images: int = 500
    device: str = "cpu"
    """Where batches arrive: cpu or cuda[:n]."""
    engines: list[str] = field(
        default_factory=lambda: [name for name in _ENGINES if is_installed(name) and name != _GPU]
    )
    """Engines to compare; by default all that are installed and run on CPUs, too."""
    num_epochs: int = 1
    """Training crops of each image."""
    min_zoom: float = MIN_TRAIN_ZOOM
    """See LoaderConfig; inf decodes full levels only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_epochs=1)
        check_target(self.output, folder=True)
        if unknown := [engine for engine in self.engines if engine not in _ENGINES]:
            raise InputError(f"engines={','.join(unknown)}: choose from {', '.join(_ENGINES)}")
        check_engines(self.engines)


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


def measure(options: FidelityOptions) -> tuple[dict[str, Any], list[Agreement], list[Agreement]]:
    """Returns the record, all agreements with their worst crops, and engine roc's crops at each resolution."""
    environment = conditions(options.data)
    files = options.files()
    figures, found, roc = [], [], []
    total = len(options.train_res) * (len(options.engines) + 1)
    with Interruption() as interruption, tqdm(total=total, desc="comparing", unit=" engines", disable=None) as bar:
        for side in options.train_res:
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
        options.settings(),
        environment,
        _NOTE.format(**options.settings()),
        interruption.happened,
        figures=figures,
        engines=[one.as_json() for one in found],
    )
    return content, found, roc


def _both_crops(engine: str, path: Path, side: int, options: FidelityOptions) -> list[Agreement]:
    """An engine on training crops, if it accepts our boxes, and on center crops."""
    settings = {"min_zoom": options.min_zoom, "device": options.device}
    configs = [LoaderConfig(path, crop, side, 50, **settings) for crop in (TrainCrop(), EvalCrop())]
    return [one for config in configs if (one := agreement(engine, config)) is not None]


def main() -> None:
    """Compares, writes page and record, prints the tables."""
    options = parse(FidelityOptions, sys.argv[1:], __doc__)
    content, found, roc = measure(options)
    page = options.output / "report.html"
    write_fidelity_report(content, found, roc, page)
    show(content, f"{fidelity_text(content)}\n\n{page}", options.json or options.output / "fidelity.json")


if __name__ == "__main__":
    run(main)

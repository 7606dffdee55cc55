"""How far engine `roc` is from Pillow: numbers, distributions, and the worst crops as pictures.

python -m benchmarks.fidelity --data PHOTOS --res 128,160,224 --out fidelity
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.files import BenchmarkFiles
from fixres.environment import capture
from pipelines.console import run
from pipelines.loaders.roc import RocLoader
from pipelines.loaders.torch import TorchLoader
from pipelines.spec import MIN_ZOOM, LoaderConfig, TrainCrop

_NUM_WORST = 4


def compare(path: Path, resolution: int, min_zoom: float, num_epochs: int) -> dict[str, np.ndarray]:
    """Crops of both engines at the same boxes.

    Returns:
        For each crop: mean absolute difference and largest difference in grey levels, PSNR in dB, whether it came from
        a coarser level; and the worst crops of both engines, uint8 (4, r, r, 3), worst first.
    """
    config = LoaderConfig(path, TrainCrop(), resolution, 50, num_workers=2, min_zoom=min_zoom)
    rows, coarse, worst = [], [], []
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
                pairs = zip(psnr.tolist(), got.images.numpy(), wanted.images.numpy(), strict=True)
                considered = [pair for pair, used in zip(pairs, coarse[-1], strict=True) if used or np.isinf(min_zoom)]
                worst = sorted([*worst, *considered], key=lambda pair: pair[0])[:_NUM_WORST]
    mean, largest, psnr = np.concatenate(rows).T
    pictures = {"ours": np.array([pair[1] for pair in worst]), "pillow": np.array([pair[2] for pair in worst])}
    return {"mean": mean, "largest": largest, "psnr": psnr, "coarse": np.concatenate(coarse)} | pictures


def summary(resolution: int, full: dict[str, np.ndarray], chosen: dict[str, np.ndarray]) -> dict[str, Any]:
    """The figures of one resolution."""
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


def draw(target: Path, resolution: int, full: dict[str, np.ndarray], chosen: dict[str, np.ndarray]) -> None:
    """Two histograms, and the worst crops beside Pillow's, with their difference eight times enlarged."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(_NUM_WORST + 1, 3, figsize=(9, 3 * (_NUM_WORST + 1)), layout="constrained")
    axes[0, 0].hist(full["mean"], 40)
    axes[0, 0].set(title=f"{resolution} px, full level", xlabel="mean difference from Pillow, grey levels")
    axes[0, 1].hist(chosen["psnr"][chosen["coarse"]], 40)
    axes[0, 1].set(title="coarser levels", xlabel="PSNR against Pillow, dB")
    axes[0, 2].axis("off")
    for row, (ours, theirs) in enumerate(zip(chosen["ours"], chosen["pillow"], strict=True), 1):
        enlarged = np.clip(128 + 8 * (ours.astype(int) - theirs), 0, 255).astype(np.uint8)
        for axis, image, title in zip(axes[row], (ours, theirs, enlarged), ("roc", "Pillow", "8 x diff"), strict=True):
            axis.imshow(image)
            axis.set_title(title)
    for axis in axes[1:].flat:
        axis.axis("off")
    figure.savefig(target, dpi=90)
    pyplot.close(figure)


def main() -> None:
    """Parses the command line, compares, writes pictures and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--res", default="128,160,224", help="output sides in pixels (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--num-images", type=int, default=500)
    parser.add_argument("--num-epochs", type=int, default=1, help="crops of each image (%(default)s)")
    parser.add_argument("--min-zoom", type=float, default=MIN_ZOOM, help="the quality knob (%(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("data/throughput"), help="where files are made and kept")
    options = parser.parse_args()
    path = BenchmarkFiles(options.data, options.work_dir, options.num_images, 500, 90).path("roc")
    options.out.mkdir(parents=True, exist_ok=True)
    figures = []
    for resolution in (int(side) for side in options.res.split(",")):
        full = compare(path, resolution, float("inf"), options.num_epochs)
        chosen = compare(path, resolution, options.min_zoom, options.num_epochs)
        figures.append(summary(resolution, full, chosen))
        print(json.dumps(figures[-1], indent=1))
        draw(options.out / f"fidelity_{resolution}.png", resolution, full, chosen)
    record = {
        "version": 1,
        "kind": "fidelity",
        "name": "fidelity",
        "note": f"{options.num_images} photographs at most 500 px, quality 90; min_zoom {options.min_zoom}.",
        "figures": figures,
        "environment": capture(),
    }
    (options.out / "fidelity.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run(main)

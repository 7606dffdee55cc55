"""The fidelity page: agreement in numbers, histograms, and each engine's worst crops beside the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.docs.render import fidelity_table
from benchmarks.harness.html_page import COLORS, axes, conditions_of, embed, picture, write_page
from benchmarks.loaders.agreement import Agreement
from benchmarks.throughput.report import cells_of

_GAIN = 8  # of difference images
_ENLARGED = 4  # times
_PART = 48  # pixels of an enlarged part


def write_fidelity_report(
    content: dict[str, Any], found: list[Agreement], chosen: dict[int, dict[str, np.ndarray]], target: Path
) -> None:
    """Writes the page.

    Args:
        content: a fidelity record.
        found: what it was made of, with the worst crops.
        chosen: by resolution engine roc's crops: "mean" and "psnr" of those it chose, "full_mean" of full levels,
            "coarse", which came from a coarser level.
        target: the HTML file.
    """
    figures = [(f"{engine}", embed(_histogram(engine, found))) for engine in dict.fromkeys(one.engine for one in found)]
    figures += [
        (f"coarser levels, {side} px", embed(_coarse(side, one))) for side, one in chosen.items() if one["coarse"].any()
    ]
    write_page(
        target,
        "fidelity.html.j2",
        content=content,
        rows=[_row(one) for one in content["engines"]],
        levels=cells_of(fidelity_table(content)) if content["figures"] else [],
        figures=figures,
        crops=[(one.engine, one.crops, one.res, _pictures(one)) for one in found],
        gain=_GAIN,
        enlarged=_ENLARGED,
        conditions=conditions_of(content),
    )


def difference_image(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Gray where two uint8 pictures agree, brighter where the first is brighter, `_GAIN` times the difference."""
    return np.clip(128 + _GAIN * (one.astype(int) - other), 0, 255).astype(np.uint8)


def worst_part(one: np.ndarray, other: np.ndarray, side: int = _PART) -> tuple[slice, slice]:
    """Rows and columns of the part, `side` pixels square, in which two pictures differ most."""
    side = min(side, *one.shape[:2])
    sums = np.abs(one.astype(int) - other).sum(2).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    totals = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    y, x = np.unravel_index(totals.argmax(), totals.shape)
    return slice(int(y), int(y) + side), slice(int(x), int(x) + side)


def _pictures(one: Agreement) -> list[list[tuple[str, str]]]:
    """For each of the worst crops its pictures with captions."""
    rows = []
    for got, wanted in zip(one.worst, one.reference, strict=True):
        part = worst_part(got, wanted)
        rows.append(
            [
                (one.engine, picture(got)),
                ("Pillow", picture(wanted)),
                (f"{_GAIN} times the difference", picture(difference_image(got, wanted))),
                (f"{one.engine}, enlarged", picture(got[part], _ENLARGED)),
                ("Pillow, enlarged", picture(wanted[part], _ENLARGED)),
            ]
        )
    return rows


def _row(one: dict[str, Any]) -> list[str]:
    shown = [f"{one[key]:.2f}" for key in ("mean_difference", "worst_mean_difference")]
    shown += [f"{one[key]:.1f}" for key in ("mean_psnr", "psnr_5th_percentile", "worst_psnr")]
    labels = f"{100 * one['label_agreement']:.1f} %"
    return [one["engine"], one["crops"], str(one["res"]), str(one["num_crops"]), *shown, labels]


def _histogram(engine: str, found: list[Agreement]) -> bytes:
    with axes(engine, "mean difference from Pillow in a crop, gray levels", "crops") as (plot, png):
        for k, one in enumerate(one for one in found if one.engine == engine):
            label, color = f"{one.crops} crops, {one.res} px", COLORS[k % len(COLORS)]
            plot.hist(one.mean, 40, histtype="step", label=label, color=color)
    return png.getvalue()


def _coarse(side: int, one: dict[str, np.ndarray]) -> bytes:
    label = "PSNR against Pillow, dB"
    with axes(f"roc, crops from coarser levels, {side} px", label, "crops", legend=False) as (plot, png):
        plot.hist(one["psnr"][one["coarse"]], 40, color=COLORS[0])
    return png.getvalue()

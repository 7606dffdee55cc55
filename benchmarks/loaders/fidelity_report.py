"""The fidelity page: agreement in numbers, histograms, and each engine's worst crops beside the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loaders.agreement import Agreement
from benchmarks.loaders.tables import agreement_rows, fidelity_rows
from fixres.reporting.html_page import condition_rows, embed, write_page
from fixres.reporting.plots import COLORS, axes, enlarged

_GAIN = 8  # of difference images
_ENLARGED = 4  # times
_PART = 48  # pixels of an enlarged part


def write_fidelity_report(content: dict[str, Any], found: list[Agreement], roc: list[Agreement], target: Path) -> None:
    """Writes the page of a fidelity record and its agreements; `roc` has those of engine roc's training crops."""
    figures = [(engine, _histogram(engine, found)) for engine in dict.fromkeys(one.engine for one in found)]
    figures += [(f"coarser levels, {one.res} px", _coarse(one)) for one in roc if one.coarse.any()]
    write_page(
        target,
        "benchmarks.loaders",
        "fidelity.html.j2",
        content=content,
        rows=agreement_rows(content),
        levels=fidelity_rows(content) if content["figures"] else [],
        figures=figures,
        crops=[(one.engine, one.crops, one.res, _pictures(one)) for one in found],
        enlarged=_ENLARGED,
        conditions=condition_rows(content["environment"]),
    )


def difference_image(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Gray where two uint8 images agree, brighter where the first is brighter, `_GAIN` times the difference."""
    return np.clip(128 + _GAIN * (one.astype(int) - other), 0, 255).astype(np.uint8)


def worst_part(one: np.ndarray, other: np.ndarray, side: int = _PART) -> tuple[slice, slice]:
    """Rows and columns of the square part, `side` pixels, in which two images differ most."""
    side = min(side, *one.shape[:2])
    sums = np.abs(one.astype(int) - other).sum(2).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    totals = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    y, x = map(int, np.unravel_index(totals.argmax(), totals.shape))
    return slice(y, y + side), slice(x, x + side)


def _pictures(one: Agreement) -> list[list[tuple[str, str]]]:
    """The pictures of each of the worst crops, with captions."""
    rows = []
    for got, wanted in zip(one.worst, one.reference, strict=True):
        part = worst_part(got, wanted)
        pictures = {
            one.engine: enlarged(got),
            "Pillow": enlarged(wanted),
            f"{_GAIN} times the difference": enlarged(difference_image(got, wanted)),
            f"{one.engine}, enlarged": enlarged(got[part], _ENLARGED),
            "Pillow, enlarged": enlarged(wanted[part], _ENLARGED),
        }
        rows.append([(caption, embed(png)) for caption, png in pictures.items()])
    return rows


def _histogram(engine: str, found: list[Agreement]) -> str:
    with axes(engine, "mean difference from Pillow in a crop, gray levels", "crops") as (plot, png):
        for k, one in enumerate(one for one in found if one.engine == engine):
            label, color = f"{one.crops} crops, {one.res} px", COLORS[k % len(COLORS)]
            plot.hist(one.mean, 40, histtype="step", label=label, color=color)
    return embed(png.getvalue())


def _coarse(one: Agreement) -> str:
    title, label = f"roc, crops from coarser levels, {one.res} px", "PSNR against Pillow, dB"
    with axes(title, label, "crops", legend="none") as (plot, png):
        plot.hist(one.psnr[one.coarse], 40, color=COLORS[0])
    return embed(png.getvalue())

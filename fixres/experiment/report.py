"""report.json, report.html and the table at the end of a run, all from the same records."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fixres.config.parsing import as_plain, recipe_text
from fixres.config.recipe import Recipe
from fixres.evaluation.accuracy import at
from fixres.experiment import figures
from fixres.experiment.results import VariantResult
from pipelines.runtime.atomic_files import atomic_file, write_json
from pipelines.spec import InputError

VERSION = 1


@dataclass(frozen=True)
class Report:
    """A finished run.

    Attributes:
        recipe: what was asked.
        variants: what came out.
        environment: hardware, versions, commit.
        data: path, engine, classes, sizes, preparation time.
        crops: variant name to uint8 (num, r, r, 3) crops under "train" and "test".
    """

    recipe: Recipe
    variants: list[VariantResult]
    environment: dict[str, Any]
    data: dict[str, Any]
    crops: dict[str, dict[str, np.ndarray]]

    def savings(self) -> dict[str, float] | None:
        """The fast variant against the baseline; None unless both ran.

        The fast variant's fix counts as training, and its gain is the accuracy difference in fractions.
        """
        variants = {variant.name: variant for variant in self.variants}
        if set(variants) != {"baseline", "fast"}:
            return None
        baseline, fast = variants["baseline"], variants["fast"]
        return {
            "train_time_ratio": (fast.train_seconds + fast.finetune_seconds) / baseline.train_seconds,
            "train_time_ratio_without_finetune": fast.train_seconds / baseline.train_seconds,
            "wall_time_ratio": fast.wall_seconds / baseline.wall_seconds,
            "top1_gain": fast.top1 - baseline.top1,
            "top1_gain_of_finetune": fast.top1 - fast.top1_before_finetune,
        }

    def as_json(self) -> dict[str, Any]:
        """What report.json holds."""
        return {
            "version": VERSION,
            "name": self.recipe.name,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "variants": [asdict(variant) for variant in self.variants],
            "savings": self.savings(),
            "data": as_plain(self.data),
            "environment": self.environment,
            "recipe": as_plain(self.recipe),
        }

    def table(self) -> str:
        """About ten lines for the terminal."""
        rows = [("", *(variant.name for variant in self.variants))]
        rows += [(title, *(form(variant) for variant in self.variants)) for title, form in _ROWS]
        return "\n".join([*aligned(rows), *self._verdict()])

    def _verdict(self) -> list[str]:
        savings = self.savings()
        if savings is None:
            return []
        return [
            f"fast against baseline: {savings['train_time_ratio']:.2f} of the training clock, fix included "
            f"({savings['wall_time_ratio']:.2f} of the program clock)",
            f"top-1 of fast less baseline: {100 * savings['top1_gain']:+.1f} points; "
            f"gain of the fix at its test size: {100 * savings['top1_gain_of_finetune']:+.1f} points",
        ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells as lines for the terminal: the first column to the left, the others to the right."""
    width = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(width[0]), *(cell.rjust(w) for cell, w in zip(row[1:], width[1:], strict=True))])
        for row in rows
    ]


def _resolutions(variant: VariantResult) -> str:
    first, last = variant.train_res_by_epoch[0], variant.train_res
    return f"{first} px" if first == last else f"{first} to {last} px"


def _best(variant: VariantResult) -> str:
    best = max(variant.sweep_before, key=lambda result: result.top1)
    return f"{100 * best.top1:.1f} % at {best.test_res} px"


_ROWS = (
    ("trained at", _resolutions),
    ("tested at", lambda variant: f"{variant.test_res} px"),
    ("top-1 before fix", lambda variant: f"{100 * variant.top1_before_finetune:.1f} %"),
    ("top-1", lambda variant: f"{100 * variant.top1:.1f} %"),
    ("best of the sweep before fix", _best),
    ("training", lambda variant: f"{variant.train_seconds:.1f} s, {variant.images_per_second:.0f} images/s"),
    ("waiting for data", lambda variant: f"{100 * variant.data_wait_share:.0f} %"),
    ("finetune", lambda variant: f"{variant.finetune_seconds:.1f} s"),
    ("program", lambda variant: f"{variant.wall_seconds:.1f} s"),
)


def write_report(report: Report, folder: Path) -> None:
    """Writes report.json and report.html into `folder`, each under its name only when complete."""
    write_json(folder / "report.json", report.as_json())
    with atomic_file(folder / "report.html", overwrite=True) as path:
        path.write_text(_html(report, folder), encoding="utf-8")


def render_page(template: str, **values: Any) -> str:
    """A page of its own, pictures inside, from one of fixres/templates; text is escaped, a missing value an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fixres.experiment"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    return environment.get_template(template).render(**values)


def _html(report: Report, folder: Path) -> str:
    return render_page(
        "report.html.j2",
        report=report,
        savings=report.savings(),
        rows=[(title, [form(variant) for variant in report.variants]) for title, form in _ROWS],
        pictures=_pictures(report, folder),
        crops=[(name, kind, embed(figures.contact_sheet(images)))
               for name, kinds in report.crops.items() for kind, images in kinds.items()],
        sweep=_sweep_rows(report.variants),
        recipe=recipe_text(as_plain(report.recipe)),
    )  # fmt: skip


def _pictures(report: Report, folder: Path) -> list[str]:
    epochs: dict[str, list[float]] = {variant.name: [] for variant in report.variants}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            epochs[record["variant"]].append(record["loss"])
    variants = report.variants
    return [embed(png) for png in (figures.curves(variants), figures.sweeps(variants), figures.stages(variants),
                                    figures.losses(variants, epochs))]  # fmt: skip


def _sweep_rows(variants: list[VariantResult]) -> list[tuple[int, list[str]]]:
    """For each test resolution a cell for each variant and each of before and after the fix."""
    columns = [results for variant in variants for results in (variant.sweep_before, variant.sweep_after) if results]
    resolutions = [result.test_res for result in columns[0]]
    return [
        (resolution, [f"{100 * at(results, resolution).top1:.1f}" for results in columns]) for resolution in resolutions
    ]


def embed(png: bytes) -> str:
    """A PNG as the address of an image inside a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a run folder."""
    path = folder / "report.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} holds no report.json; the run did not finish") from None

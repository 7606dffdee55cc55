"""report.json, report.html and the table at the end of a run, all from the same records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fixres.config.legacy import renamed
from fixres.config.parsing import as_plain, recipe_text
from fixres.config.recipe import Recipe
from fixres.evaluation.accuracy import at
from fixres.experiment import figures
from fixres.experiment.results import VariantResult
from fixres.observability.console import aligned
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError
from fixres.reporting.html_page import condition_rows, embed, write_page
from fixres.reporting.plots import contact_sheet

VERSION = 1


@dataclass(frozen=True)
class Report:
    """A finished run.

    Attributes:
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
        """The variant "fast" compared with "baseline"; None unless both were trained.

        Time ratios include fine-tuning where not said otherwise; gains are differences of top-1 in fractions.
        """
        variants = {variant.name: variant for variant in self.variants}
        if not {"baseline", "fast"} <= set(variants):
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
        """The content of report.json."""
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

    def rows(self) -> list[list[str]]:
        """The table of results: a heading, then a row for each quantity, a column for each variant."""
        titles = [["", *(variant.name for variant in self.variants)]]
        return titles + [[title, *(form(variant) for variant in self.variants)] for title, form in _ROWS]

    def table(self) -> str:
        """About ten lines for the terminal."""
        return "\n".join([*aligned(self.rows()), *self._comparison()])

    def _comparison(self) -> list[str]:
        savings = self.savings()
        if savings is None:
            return []
        return [
            f"fast compared with baseline: {savings['train_time_ratio']:.2f} of the training time, fine-tuning "
            f"included ({savings['wall_time_ratio']:.2f} of the wall-clock time)",
            f"delta top-1 (percentage points): {100 * savings['top1_gain']:+.1f}; "
            f"by fine-tuning alone: {100 * savings['top1_gain_of_finetune']:+.1f}",
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
    ("top-1 before fine-tuning", lambda variant: f"{100 * variant.top1_before_finetune:.1f} %"),
    ("top-1", lambda variant: f"{100 * variant.top1:.1f} %"),
    ("best before fine-tuning", _best),
    ("training time", lambda variant: f"{variant.train_seconds:.1f} s, {variant.images_per_second:.0f} images/s"),
    ("waiting for data", lambda variant: f"{100 * variant.data_wait_share:.0f} %"),
    ("fine-tuning time", lambda variant: f"{variant.finetune_seconds:.1f} s"),
    ("wall-clock time", lambda variant: f"{variant.wall_seconds:.1f} s"),
)


def write_report(report: Report, folder: Path) -> None:
    """Writes report.json and report.html into `folder`, each atomically."""
    write_json(folder / "report.json", report.as_json())
    write_page(
        folder / "report.html",
        "fixres.experiment",
        "report.html.j2",
        report=report,
        savings=report.savings(),
        rows=report.rows(),
        plots=[embed(png) for png in _plots(report, folder)],
        crops=[(name, kind, embed(contact_sheet(images)))
               for name, kinds in report.crops.items() for kind, images in kinds.items()],
        sweep=_sweep_rows(report.variants),
        conditions=condition_rows(report.environment),
        recipe=recipe_text(as_plain(report.recipe)),
    )  # fmt: skip


def _plots(report: Report, folder: Path) -> list[bytes]:
    losses: dict[str, list[float]] = {variant.name: [] for variant in report.variants}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = renamed(decode_json(line, finite=False))  # a resumed run may have begun with the former names
        if record["kind"] == "train":
            losses[record["variant"]].append(record["loss"])
    variants = report.variants
    return [figures.curves(variants), figures.sweeps(variants), figures.stages(variants), figures.losses(losses)]


def _sweep_rows(variants: list[VariantResult]) -> list[list[str]]:
    """A heading, then for each test resolution the top1 of each variant before and after fine-tuning."""
    columns = [
        (f"{variant.name}, {when}", sweep)
        for variant in variants
        for when, sweep in (("as trained", variant.sweep_before), ("fine-tuned", variant.sweep_after))
        if sweep
    ]
    heading = ["test px", *(title for title, _ in columns)]
    resolutions = [result.test_res for result in columns[0][1]]
    return [
        heading,
        *([f"{res}", *(f"{100 * at(sweep, res).top1:.1f}" for _, sweep in columns)] for res in resolutions),
    ]


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a run folder."""
    path = folder / "report.json"
    try:
        return renamed(decode_json(path.read_text(), finite=False))
    except FileNotFoundError:
        raise InputError(f"{folder} has no report.json; the run did not finish") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); --resume no trains again") from None

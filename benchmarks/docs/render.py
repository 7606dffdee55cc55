"""Writes records as Markdown and as a figure into README and docs, so that no measured number is typed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.docs.accuracy_figures import published_figure, savings_figure
from benchmarks.docs.figure import throughput_figure
from benchmarks.finetuning.tables import finetuning_table
from benchmarks.harness.records import RESULTS
from benchmarks.loaders.gpu_projection.tables import gpu_projection_table
from benchmarks.loaders.tables import (
    conversion_table,
    crop_index_table,
    dali_stages_table,
    datasets_summary,
    datasets_table,
    fidelity_table,
    formats_table,
    gpu_staging_table,
    indexing_table,
    nvjpeg_backends_table,
    stored_sizes_table,
)
from benchmarks.published.tables import published_table
from benchmarks.savings.budgets_report import budgets_table
from benchmarks.savings.report import savings_summary, savings_table
from benchmarks.scaling.tables import fault_tolerance_table, scaling_table
from benchmarks.speedrun.tables import speedrun_table
from benchmarks.throughput.tables import first_batch_table, throughput_summary, throughput_table
from benchmarks.training.tables import (
    allocator_table,
    end_to_end_step_table,
    timm_loop_table,
    train_step_table,
    training_table,
)
from benchmarks.transfer.tables import transfer_table
from benchmarks.tricks.report import augmentation_table, tricks_speed_table, tricks_table
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record

_TREE = RESULTS.parents[1]
_FIGURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "published": published_figure,
    "savings_budgets": savings_figure,
    "throughput": throughput_figure,
}
"""By name of the record; the figure is docs/figures/NAME.svg."""
_FIGURES_OF_PAGES = ("published", "savings_budgets")

_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "allocator": allocator_table,
    "augmentation": augmentation_table,
    "conversion": conversion_table,
    "crop_index": crop_index_table,
    "indexing": indexing_table,
    "formats": formats_table,
    "dali_stages": dali_stages_table,
    "datasets": datasets_table,
    "end_to_end_step": end_to_end_step_table,
    "fault_tolerance": fault_tolerance_table,
    "fidelity": fidelity_table,
    "finetuning": finetuning_table,
    "first_batch": first_batch_table,
    "gpu_projection": gpu_projection_table,
    "gpu_staging": gpu_staging_table,
    "nvjpeg_backends": nvjpeg_backends_table,
    "published": published_table,
    "savings": savings_table,
    "savings_budgets": budgets_table,
    "scaling": scaling_table,
    "speedrun": speedrun_table,
    "stored_sizes": stored_sizes_table,
    "throughput": throughput_table,
    "timm_loop": timm_loop_table,
    "train_step": train_step_table,
    "training": training_table,
    "transfer": transfer_table,
    "tricks": tricks_table,
    "tricks_speed": tricks_speed_table,
}


# What a first reader needs of a record, for blocks `<!-- NAME_summary:begin -->`.
_SUMMARIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "datasets": datasets_summary,
    "savings": savings_summary,
    "throughput": throughput_summary,
}


def section(record: dict[str, Any], root: str = "") -> str:
    """A record's table and conditions; `root` is the path from the document to the repository, for the link."""
    return f"{_shown(record, root)}{_TABLES[record['kind']](record)}\n\n{_conditions(record, root)}"


def _shown(record: dict[str, Any], root: str) -> str:
    """The record's figure above its table, in pages of docs; README places its figure itself."""
    name = record["name"]
    return f"![{name.replace('_', ' ')}](figures/{name}.svg)\n\n" if root and name in _FIGURES_OF_PAGES else ""


def summary(record: dict[str, Any], root: str = "") -> str:
    """A record's shortest form and conditions."""
    return f"{_SUMMARIES[record['kind']](record)}\n\n{_conditions(record, root)}"


def _conditions(record: dict[str, Any], root: str) -> str:
    environments = [one["environment"] for one in record["runs"]] if "runs" in record else [record["environment"]]
    first, file = environments[0], f"benchmarks/results/{record['name']}.json"
    commits = sorted({str(one["commit"])[:7] for one in record.get("trainings", environments)})
    machine = f"{first['num_cores']} cores of {first['cpu']}, {first['gpu'] or 'no GPU'}"
    half = "" if first.get("precision") in (None, "fp32") else f"{first['precision']}, "
    note = f" {record['note']}" if record.get("note") else ""
    return (
        f"Measured on {machine}, {half}torch {first['versions']['torch']}, commit {', '.join(commits)}.{note} "
        f"Record: [{file}]({root}{file})."
    )


def render(text: str, results: Path = RESULTS, root: str = "") -> str:
    """Fills a Markdown text's blocks `<!-- NAME:begin -->` to `<!-- NAME:end -->` from the records of that name.

    A block `NAME_summary` gets the record's shortest form.
    """
    for path in sorted(results.glob("*.json")):
        for name, make in ((path.stem, section), (f"{path.stem}_summary", summary)):
            begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
            if begin not in text:
                continue
            before, _, rest = text.partition(begin)
            _, found, after = rest.partition(end)
            if not found:
                raise InputError(f"the block {begin} has no {end}; add it")
            text = f"{before}{begin}\n{make(read_record(path), root)}\n{end}{after}"
    return text


def documents() -> dict[Path, str]:
    """Documents that may have such blocks, each with the path from it to the root of the repository."""
    return {_TREE / "README.md": "", **dict.fromkeys(sorted((_TREE / "docs").glob("*.md")), "../")}


def rendered() -> dict[Path, str]:
    """The text that each document and figure must have."""
    found = {path: render(path.read_text(), root=root) for path, root in documents().items()}
    for name, make in _FIGURES.items():
        if (record := RESULTS / f"{name}.json").is_file():
            found[_TREE / "docs" / "figures" / f"{name}.svg"] = make(read_record(record))
    return found

"""The report of a fine-tuning: a JSON record, a Markdown page, a table for the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fixres.config.parsing import as_plain
from fixres.evaluation.accuracy import EvalResult, at
from fixres.finetuning.loop import FinetuneResult
from fixres.pipelines.runtime.atomic_files import atomic_file, write_json

VERSION = 1


@dataclass(frozen=True)
class Finetuned(FinetuneResult):
    """A fine-tuning with its weights and tests.

    Attributes:
        test_res: pixels.
        output: file of the weights.
        after: tests at the resolutions of the sweep, with these weights.
    """

    test_res: int
    output: str
    after: list[EvalResult]


@dataclass(frozen=True)
class FinetuneReport:
    """A finished job.

    Attributes:
        checkpoint: the weights before.
        model: timm's name of the network.
        train_res: pixels.
        before: tests at the resolutions of the sweep, with the weights before.
        finetunings: one for each resolution.
        job: the settings, a dataclass.
        environment: hardware, versions, commit.
    """

    checkpoint: str
    model: str
    train_res: int
    before: list[EvalResult]
    finetunings: list[Finetuned]
    job: Any
    environment: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The content of the JSON file."""
        values = asdict(self) | {"job": as_plain(self.job)}
        return {"version": VERSION, "written": datetime.now(UTC).isoformat(timespec="seconds"), **values}

    def rows(self) -> list[list[str]]:
        """Top-1 in per cent at each test resolution, before and after each fine-tuning, with a heading.

        If the network knows more classes than the data has, a second row at each resolution counts all its outputs.
        """
        rows = [["tested at", "before", *(f"fine-tuned for {one.test_res}" for one in self.finetunings)]]
        for one in self.before:
            results = [one, *(at(finetuned.after, one.test_res) for finetuned in self.finetunings)]
            if one.num_outputs is None:
                rows.append([f"{one.test_res} px", *(f"{100 * result.top1:.1f}" for result in results)])
                continue
            chosen, every = ([getattr(result, name) for result in results] for name in ("top1", "top1_all_outputs"))
            rows.append(
                [f"{one.test_res} px, outputs of the data's classes", *(f"{100 * top1:.1f}" for top1 in chosen)]
            )
            rows.append([f"{one.test_res} px, all {one.num_outputs} outputs", *(f"{100 * top1:.1f}" for top1 in every)])
        rows.append(["fine-tuning, s", "", *(f"{finetuned.seconds:.1f}" for finetuned in self.finetunings)])
        return rows

    def table(self) -> str:
        """The rows for a terminal, top-1 in per cent."""
        rows = self.rows()
        width = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, width, strict=True)) for row in rows)

    def markdown(self) -> str:
        """A page with the table and a line for each fine-tuning."""
        head, *rows = self.rows()
        title = f"# {self.model}, trained at {self.train_res} px, fine-tuned"
        lines = [title, "", f"Checkpoint `{self.checkpoint}`. Top-1, %:", ""]
        lines += [_row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
        for finetuned in self.finetunings:
            adapted = f"; {finetuned.adaptation}" if finetuned.adaptation else ""
            lines.append(f"* {finetuned.test_res} px: {finetuned.layers}{adapted}; weights in `{finetuned.output}`")
        environment, num_images = self.environment, self.before[0].num_images
        hardware = environment.get("gpu") or f"{environment.get('num_cores')} cores of {environment.get('cpu')}"
        last = f"{num_images} test images, n = 1; {hardware}, commit {environment.get('commit')}."
        return "\n".join([*lines, "", last, ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_finetune_report(report: FinetuneReport, path: Path) -> None:
    """Writes `path`.json and `path`.md atomically."""
    write_json(path.with_name(f"{path.name}.json"), report.as_json())
    with atomic_file(path.with_name(f"{path.name}.md"), overwrite=True) as partial:
        partial.write_text(report.markdown(), encoding="utf-8")

"""report.json, report.html and the table of a run of detection or segmentation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fixres.config.parsing import recipe_text
from fixres.config.transfer import TransferRecipe
from fixres.config.validation import as_plain
from fixres.experiment.results import TrainingState
from fixres.observability.console import aligned
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.reporting.html_page import condition_rows, embed, write_page
from fixres.reporting.plots import COLORS, axes
from fixres.transfer.feature_pyramid import Backbone

VERSION = 1
_TITLES = {
    "map_voc07": "mAP at IoU 0.5, VOC 2007 (11 points)",
    "map_voc": "mAP at IoU 0.5, area under the curve",
    "ap": "COCO's AP",
    "ap50": "COCO's AP50",
    "ap75": "COCO's AP75",
    "pixel_accuracy": "pixel accuracy",
    "mean_iou": "mean IoU",
}


@dataclass(frozen=True)
class TransferReport:
    """A finished run.

    Attributes:
        result: the metrics, see DetectionResult and SegmentationResult.
        state: epochs and clock.
        curve: metrics of all evaluations, with their epochs.
        backbone: of the trained network.
        data: path, sizes, classes.
        environment: hardware, versions, commit.
    """

    recipe: TransferRecipe
    result: dict[str, Any]
    state: TrainingState
    curve: list[dict[str, Any]]
    backbone: Backbone
    data: dict[str, Any]
    environment: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The content of report.json; metrics are fractions."""
        clock, weights = self.state.clock, self.backbone.weights
        return {
            "version": VERSION,
            "task": self.recipe.task,
            "name": self.recipe.name,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "result": self.result,
            "curve": self.curve,
            "epochs": [asdict(epoch) for epoch in self.state.epochs],
            "train_seconds": clock.train_seconds,
            "evaluate_seconds": clock.seconds["evaluate"],
            "wall_seconds": clock.wall_seconds,
            "backbone": {
                "source": weights.source,
                "num_loaded": len(weights.loaded),
                "left_out": list(weights.left_out),
                "model": self.backbone.info.model,
            },
            "data": as_plain(self.data),
            "environment": self.environment,
            "recipe": as_plain(self.recipe),
        }

    def rows(self) -> list[list[str]]:
        """The table of results: a title and a value in each row."""
        found = [[title, f"{100 * self.result[name]:.1f} %"] for name, title in _TITLES.items()
                 if self.result.get(name) is not None]  # fmt: skip
        clock, epochs = self.state.clock, self.state.epochs
        speed = sum(epoch.num_images for epoch in epochs) / max(clock.train_seconds, 1e-9)
        return [
            *found,
            ["test images", f"{self.result['num_images']}"],
            ["training time", f"{clock.train_seconds:.1f} s, {speed:.1f} images/s"],
            ["wall-clock time", f"{clock.wall_seconds:.1f} s"],
        ]

    def table(self) -> str:
        """The table for the terminal."""
        return "\n".join(aligned(self.rows()))


def write_report(report: TransferReport, pictures: list[bytes], folder: Path) -> None:
    """Writes report.json and report.html into `folder`, each atomically."""
    write_json(folder / "report.json", report.as_json())
    by_class = [[name, "no test objects" if value is None else f"{100 * value:.1f}"]
                for name, value in report.result["by_class"].items()]  # fmt: skip
    write_page(
        folder / "report.html",
        "fixres.transfer",
        "report.html.j2",
        report=report,
        rows=report.rows(),
        by_class=by_class,
        metric="AP, %" if report.recipe.task == "detect" else "IoU, %",
        losses=embed(_losses(report.state)),
        pictures=[embed(picture) for picture in pictures],
        conditions=condition_rows(report.environment),
        recipe=recipe_text(as_plain(report.recipe)),
    )


def _losses(state: TrainingState) -> bytes:
    with axes("Training loss", "epochs", "loss", legend="none") as (plot, png):
        plot.plot(range(1, len(state.epochs) + 1), [epoch.loss for epoch in state.epochs], "o-", color=COLORS[0])
    return png.getvalue()

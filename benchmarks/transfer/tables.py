"""The table of a transfer record, as tables 8 and 9 of arXiv 1812.01187."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.stats import differences, spread_of
from benchmarks.harness.tables import markdown

_TITLES = {
    "map_voc07": "mAP, VOC 2007, %",
    "map_voc": "mAP, area, %",
    "ap": "COCO's AP, %",
    "pixel_accuracy": "pixel accuracy, %",
    "mean_iou": "mean IoU, %",
}
_COMPARED = {"detect": "map_voc07", "segment": "mean_iou"}


def transfer_table(record: dict[str, Any]) -> str:
    """Markdown: a row for each backbone; differences to the first one, seed by seed."""
    trainings = record["trainings"]
    if not trainings:
        return "No training was finished."
    names = list(dict.fromkeys(one["backbone"] for one in trainings))
    metrics = [metric for metric in _TITLES if trainings[0].get(metric) is not None]
    compared = _COMPARED[record["settings"]["task"]]
    delta_title = f"delta {_TITLES[compared].split(',')[0]} (percentage points)"
    titles = ["backbone", "seeds", "classifier's top-1, %", *(_TITLES[metric] for metric in metrics)]
    rows = [[*titles, delta_title, "95 % interval", "training, s"]]
    first = _by_seed(trainings, names[0])
    for name in names:
        mine = _by_seed(trainings, name)
        accuracies = [one["top1"] for one in mine.values() if one["top1"] is not None]
        row = [name, str(len(mine)), spread_of(accuracies).text(100) if accuracies else ""]
        row += [spread_of([one[metric] for one in mine.values()]).text(100) for metric in metrics]
        shared = [seed for seed in mine if seed in first]
        if name == names[0] or not shared:
            row += ["", ""]
        else:
            delta = differences([mine[seed][compared] for seed in shared], [first[seed][compared] for seed in shared])
            row += [delta.text(100, 1, "+"), delta.interval(100, 1, "+")]
        rows.append([*row, spread_of([one["train_seconds"] for one in mine.values()]).text(1, 0)])
    one = trainings[0]
    return (
        f"{markdown(rows)}\n\n{one['model']}, {one['epochs']} epochs of {one['num_train']} images, "
        f"{one['num_val']} test images. Mean ± standard deviation over seeds."
    )


def _by_seed(trainings: list[dict[str, Any]], name: str) -> dict[int, dict[str, Any]]:
    return {one["seed"]: one for one in trainings if one["backbone"] == name}

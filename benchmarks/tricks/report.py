"""The tables of tricks for documents and terminal, and the page: one trick after another added, and all but one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.harness.stats import Spread, differences, ratios, spread_of
from benchmarks.harness.tables import Rows, markdown, number, span
from fixres.observability.console import aligned
from fixres.reporting.html_page import condition_rows, embed, write_page
from fixres.reporting.plots import COLORS, axes

_POINTS = "(percentage points)"
_STACK_HEAD = [
    "", "source", "tested at", "top-1, %", f"delta top-1 to the row above {_POINTS}", "95 % interval",
    "training + fine-tuning, s", "ms a step", "relative step time", "memory, MB",
]  # fmt: skip
_LEAVE_ONE_OUT_HEAD = [
    "left out", "top-1, %", f"delta top-1 with it {_POINTS}", "95 % interval", "relative step time with it"
]  # fmt: skip


@dataclass(frozen=True)
class Group:
    """All trainings with the same tricks."""

    title: str  # the last trick added, or the one left out
    source: str  # the trick's paper or section
    by_seed: dict[int, dict[str, Any]]  # entries of the record

    @property
    def first(self) -> dict[str, Any]:
        """For what all seeds have in common."""
        return next(iter(self.by_seed.values()))

    def spread(self, *fields: str) -> Spread:
        """Spread over the seeds of a field, or of the sum of several."""
        return spread_of([sum(one[field] for field in fields) for one in self.by_seed.values()])

    def delta_top1(self, other: Group | None) -> Spread | None:
        """Accuracy minus that of another group in the same seeds; None if they share none."""
        pairs = self._pairs(other, "top1") if other else None
        return pairs and differences(*pairs)

    def relative_step(self, other: Group) -> str:
        """Time of a step over that of another group in the same seeds, as text."""
        pairs = self._pairs(other, "seconds_per_step")
        return "" if pairs is None else ratios(*pairs).text(1, 2)

    def _pairs(self, other: Group, field: str) -> tuple[list[float], list[float]] | None:
        seeds = [seed for seed in self.by_seed if seed in other.by_seed]
        return ([self.by_seed[s][field] for s in seeds], [other.by_seed[s][field] for s in seeds]) if seeds else None


def _with(record: dict[str, Any], tricks: Iterable[str]) -> dict[int, dict[str, Any]]:
    wanted = set(tricks)
    return {one["seed"]: one for one in record["trainings"] if set(one["tricks"]) == wanted}


def stack(record: dict[str, Any]) -> list[Group]:
    """The baseline and the tricks added one after another; a group that was not trained has no seeds."""
    found, names = [Group("baseline", "section 2.1", _with(record, []))], []
    for trick in record["tricks"]:
        names.append(trick["name"])
        found.append(Group(f"+ {trick['title']}", trick["source"], _with(record, names)))
    return found


def leave_one_out(record: dict[str, Any]) -> tuple[Group, list[Group]]:
    """All tricks, and all but each of them as far as trained; distillation does not belong to all."""
    tricks = {one["name"]: one for one in record["tricks"] if one["name"] != "distillation"}
    without = {name: _with(record, tricks.keys() - {name}) for name in tricks}
    groups = [Group(one["title"], one["source"], without[name]) for name, one in tricks.items() if without[name]]
    return Group("nothing", "", _with(record, tricks)), groups


def stack_rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for each group of the stack; differences and ratios are between trainings of the same seed."""
    groups = stack(record)
    memory = "peak_resident_bytes" if record["trainings"][0]["peak_gpu_bytes"] is None else "peak_gpu_bytes"
    return [
        [
            group.title,
            group.source,
            f"{group.first['test_res']} px",
            group.spread("top1").text(100, 1),
            *_delta_cells(group.delta_top1(above)),
            group.spread("train_seconds", "finetune_seconds").text(1, 0),
            group.spread("seconds_per_step").text(1000, 0),
            group.relative_step(groups[0]),
            group.spread(memory).text(1e-6, 0),
        ]
        for above, group in zip([None, *groups], groups, strict=False)
        if group.by_seed
    ]


def leave_one_out_rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for each trick that was left out; the first row has all tricks. Empty without such trainings."""
    everything, groups = leave_one_out(record)
    if not everything.by_seed or not groups:
        return []
    head = [everything.title, everything.spread("top1").text(100, 1), "", "", ""]
    return [head, *(
        [group.title, group.spread("top1").text(100, 1), *_delta_cells(everything.delta_top1(group)),
         everything.relative_step(group)]
        for group in groups
    )]  # fmt: skip


def _delta_cells(delta: Spread | None) -> tuple[str, str]:
    return ("", "") if delta is None else (delta.text(100, 1, "+"), delta.interval(100, 1, "+"))


def conditions_line(record: dict[str, Any]) -> str:
    """What was trained, for below the tables."""
    optim, model, data = record["recipe"]["optim"], record["recipe"]["model"], record["data"]
    seeds = len({one["seed"] for one in record["trainings"]})
    first = record["trainings"][0]
    where = "tensors on the GPU" if first["peak_gpu_bytes"] is not None else "resident, of the process"
    return (
        f"{seeds} seed{'s' if seeds > 1 else ''}{', mean ± standard deviation' if seeds > 1 else ''}; differences and "
        f"ratios seed by seed. {model['name']}, {data['num_train']} training and {data['num_val']} test images, "
        f"{len(first['train_res_by_epoch'])} epochs at {record['train_res']} px, batches of {optim['batch_size']}. "
        f"Steps without waiting for data. Peak memory ({where})."
    )


def _tables(record: dict[str, Any]) -> list[Rows]:
    pairs = ((_STACK_HEAD, stack_rows(record)), (_LEAVE_ONE_OUT_HEAD, leave_one_out_rows(record)))
    return [[head, *rows] for head, rows in pairs if rows]


def tricks_table(record: dict[str, Any]) -> str:
    """Markdown: both tables, conditions."""
    return "\n\n".join([*map(markdown, _tables(record)), conditions_line(record)])


def text(record: dict[str, Any]) -> str:
    """For the terminal."""
    return "\n\n".join([*("\n".join(aligned(rows)) for rows in _tables(record)), conditions_line(record)])


def tricks_speed_table(record: dict[str, Any]) -> str:
    """Markdown: training loops with tricks, images/s and speed relative to the plain loop."""
    rows = [["network", "batch", "px", "tricks", "images/s", "relative speed", "interval"]]
    for load in record["results"]:
        for one in load["loops"]:
            cells = [load["model"], str(load["batch_size"]), str(load["res"]), one["tricks"]]
            relative = [number(one["relative_speed"], 3), span(one["relative_speed_interval"], 3)]
            plain = one["tricks"] == "plain"
            rows.append([*cells, f"{one['images_per_second']:.3g}", *(["1", ""] if plain else relative)])
    return markdown(rows)


def augmentation_table(record: dict[str, Any]) -> str:
    """Markdown: images/s of each augmentation, and its time relative to that of others."""
    rows = [["augmentation", "library", "images/s", "time of fixres, relative to it", "interval"]]
    for one in record["results"]:
        for library in one["libraries"]:
            relative = [number(library["relative_speed"], 2), span(library["relative_speed_interval"], 2)]
            speed = f"{round(library['images_per_second'], -1):.0f}"
            rows.append([one["augmentation"], library["library"], speed,
                         *(["1", ""] if library["library"] == "fixres" else relative)])  # fmt: skip
    return markdown(rows)


def page(record: dict[str, Any], target: Path) -> None:
    """Writes HTML in a single file."""
    groups, (everything, left_out) = stack(record), leave_one_out(record)
    added = [(one.title, one.delta_top1(above)) for above, one in pairwise(groups)]
    others = [(one.title, everything.delta_top1(one)) for one in left_out]
    trained = [one for one in groups if one.by_seed]
    plots = [("top-1 and time of a step", _step_times(trained))] if trained else []
    for title, deltas in (("Added to the tricks before it", added), ("Added to all other tricks", others)):
        if known := [(name, delta) for name, delta in deltas if delta is not None]:
            plots.append((title, _bars(title, known)))
    write_page(
        target,
        "benchmarks.tricks",
        "tricks.html.j2",
        content=record,
        conditions=condition_rows(record["environment"]),
        line=conditions_line(record),
        stack=[_STACK_HEAD, *stack_rows(record)],
        leave_one_out=[_LEAVE_ONE_OUT_HEAD, *leave_one_out_rows(record)],
        plots=plots,
        trainings=_trainings(record),
    )


def _bars(title: str, deltas: list[tuple[str, Spread]]) -> str:
    with axes(title, f"delta top-1 {_POINTS}, 95 % interval over seeds", "", legend="none") as (plot, png):
        for name, delta in deltas:
            half = 0.0 if delta.low is None else 100 * (delta.mean - delta.low)
            plot.barh(name.removeprefix("+ "), 100 * delta.mean, xerr=half, color=COLORS[1], height=0.6)
        plot.axvline(0, color="black", lw=0.8)
        plot.invert_yaxis()
    return embed(png.getvalue())


def _step_times(groups: list[Group]) -> str:
    with axes("Accuracy and time of a step", "ms a step", "top-1, %") as (plot, png):
        for k, one in enumerate(groups):
            top1, seconds = one.spread("top1"), one.spread("seconds_per_step")
            error = None if top1.sd is None else 100 * top1.sd
            style = {"fmt": "o" if k < len(COLORS) else "s", "color": COLORS[k % len(COLORS)], "label": one.title}
            plot.errorbar(1000 * seconds.mean, 100 * top1.mean, yerr=error, **style)
    return embed(png.getvalue())


def _trainings(record: dict[str, Any]) -> Rows:
    """Each training by itself, so that every mean can be checked."""
    rows = [["variant", "seed", "top-1, %", "before fine-tuning, %", "training, s", "fine-tuning, s", "ms a step",
             "commit"]]  # fmt: skip
    columns = {"top1": (100, 2), "top1_before_finetune": (100, 2), "train_seconds": (1, 1), "finetune_seconds": (1, 1),
               "seconds_per_step": (1000, 1)}  # fmt: skip
    for one in record["trainings"]:
        cells = [number(one[field], digits, factor) for field, (factor, digits) in columns.items()]
        rows.append([one["variant"], str(one["seed"]), *cells, str(one["commit"])[:7]])
    return rows

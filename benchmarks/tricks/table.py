"""The tables of a record of tricks: one after another added, and all but one. For documents, terminal and page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.stats import Spread, differences, ratios, spread_of
from fixres.observability.console import aligned

STACK_HEAD = (
    "", "source", "tested at", "top-1, %", "to the row above, points", "95 % interval", "training + fix, s",
    "ms a step", "times the baseline's", "memory, MB",
)  # fmt: skip
LESS_HEAD = ("all but", "top-1, %", "what it brings to all, points", "95 % interval", "steps with it take, times")


@dataclass(frozen=True)
class Group:
    """All trainings with the same tricks, by seed.

    Attributes:
        title: the last trick added or the one left out.
        by_seed: entries of the record.
    """

    title: str
    source: str
    by_seed: dict[int, dict[str, Any]]

    def spread(self, key: str | Callable[[dict[str, Any]], float]) -> Spread:
        """Of one figure over the seeds."""
        return spread_of([_value(one, key) for one in self.by_seed.values()])

    def pairs(self, other: Group, key: str) -> tuple[list[float], list[float]] | None:
        """One figure of both in the seeds that both have; None without any."""
        seeds = [seed for seed in self.by_seed if seed in other.by_seed]
        if not seeds:
            return None
        return [self.by_seed[s][key] for s in seeds], [other.by_seed[s][key] for s in seeds]

    @property
    def first(self) -> dict[str, Any]:
        """For what all seeds have in common."""
        return next(iter(self.by_seed.values()))


def _value(one: dict[str, Any], key: str | Callable[[dict[str, Any]], float]) -> float:
    return one[key] if isinstance(key, str) else key(one)


def _with(record: dict[str, Any], tricks: Iterable[str]) -> dict[int, dict[str, Any]]:
    wanted = set(tricks)
    return {one["seed"]: one for one in record["trainings"] if set(one["tricks"]) == wanted}


def stack(record: dict[str, Any]) -> list[Group]:
    """The baseline and what was added to it, one after another; without seeds where it was not trained."""
    found, on = [Group("baseline", "section 2.1", _with(record, []))], []
    for trick in record["tricks"]:
        on.append(trick["name"])
        found.append(Group(f"+ {trick['title']}", trick["source"], _with(record, on)))
    return found


def less_one(record: dict[str, Any]) -> tuple[Group | None, list[Group]]:
    """All tricks, and for each all but it, as far as it was trained; distillation is not one of all."""
    names = [trick["name"] for trick in record["tricks"] if trick["name"] != "distillation"]
    everything = Group("nothing", "", _with(record, names))
    found = [
        Group(trick["title"], trick["source"], _with(record, [name for name in names if name != trick["name"]]))
        for trick in record["tricks"]
        if trick["name"] in names
    ]
    return (everything if everything.by_seed else None), [group for group in found if group.by_seed]


def stack_rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for each of the stack; differences and ratios are between trainings of the same seed."""
    groups = stack(record)
    above = [None, *groups]
    return [_stack_row(one, above[k], groups[0]) for k, one in enumerate(groups) if one.by_seed]


def _stack_row(group: Group, above: Group | None, baseline: Group) -> list[str]:
    return [
        group.title,
        group.source,
        f"{group.first['test_res']} px",
        group.spread("top1").text(100, 1),
        *_gain(group.pairs(above, "top1") if above else None),
        group.spread(lambda one: one["train_seconds"] + one["finetune_seconds"]).text(1, 0),
        group.spread("seconds_per_step").text(1000, 0),
        _times(group.pairs(baseline, "seconds_per_step")),
        group.spread(_memory).text(1e-6, 0),
    ]


def less_rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for each trick that was left out; the first row has all of them. Empty without such trainings."""
    everything, groups = less_one(record)
    if everything is None or not groups:
        return []
    head = ["nothing", everything.spread("top1").text(100, 1), "", "", ""]
    return [head, *(_less_row(group, everything) for group in groups)]


def _less_row(group: Group, everything: Group) -> list[str]:
    top1 = group.spread("top1").text(100, 1)
    return [
        group.title,
        top1,
        *_gain(everything.pairs(group, "top1")),
        _times(everything.pairs(group, "seconds_per_step")),
    ]


def _gain(pairs: tuple[list[float], list[float]] | None) -> tuple[str, str]:
    if pairs is None:
        return "", ""
    gain = differences(*pairs)
    return gain.text(100, 1, "+"), gain.interval(100, 1, "+")


def _times(pairs: tuple[list[float], list[float]] | None) -> str:
    return "" if pairs is None else ratios(*pairs).text(1, 2)


def _memory(one: dict[str, Any]) -> float:
    """Bytes: of tensors on the GPU, or of the whole process without one."""
    return one["peak_resident_bytes"] if one["peak_gpu_bytes"] is None else one["peak_gpu_bytes"]


def conditions_line(record: dict[str, Any]) -> str:
    """What was trained, for below the tables."""
    optim, model, data = record["recipe"]["optim"], record["recipe"]["model"], record["data"]
    seeds = len({one["seed"] for one in record["trainings"]})
    where = "tensors on the GPU" if record["trainings"][0]["peak_gpu_bytes"] is not None else "resident, of the process"
    epochs = len(record["trainings"][0]["train_res_by_epoch"])
    return (
        f"{seeds} seed{'s' if seeds > 1 else ''}{', mean ± standard deviation' if seeds > 1 else ''}; differences and "
        f"ratios seed by seed. {model['name']}, {data['num_train']} training and {data['num_val']} test images, "
        f"{epochs} epochs at {record['train_res']} px, batches of {optim['batch_size']}. Steps without waiting "
        f"for data. Memory at its peak ({where})."
    )


def tricks_table(record: dict[str, Any]) -> str:
    """Markdown: the stack, what is left when one is missing, conditions."""
    parts = []
    if added := stack_rows(record):
        parts.append(_markdown(STACK_HEAD, added))
    if less := less_rows(record):
        parts.append(_markdown(LESS_HEAD, less))
    return "\n\n".join([*parts, conditions_line(record)])


def _markdown(head: Iterable[str], rows: list[list[str]]) -> str:
    head = list(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def text(record: dict[str, Any]) -> str:
    """For the terminal."""
    lines = []
    for head, rows in ((STACK_HEAD, stack_rows(record)), (LESS_HEAD, less_rows(record))):
        lines += [*aligned([list(head), *rows]), ""] if rows else []
    return "\n".join([*lines, conditions_line(record)])

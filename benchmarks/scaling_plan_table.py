"""The tables of a projection onto many GPUs, its formulas and its inputs."""

from __future__ import annotations

from typing import Any

from benchmarks.scaling_model import REMEDIES, WORTH_NAMING
from benchmarks.scaling_table import table


def scaling_plan_table(record: dict[str, Any]) -> str:
    """Markdown: times and losses, what breaks where, cores by engine, formulas, inputs."""
    parts = [_times(record), _breaks(record), _engines(record)]
    parts += ["Formulas (projected, not measured):", "\n".join(f"    {line}" for line in record["formulas"])]
    return "\n\n".join([*parts, _inputs(record)])


def _times(record: dict[str, Any]) -> str:
    causes = list(record["results"][0]["lost"])
    head = ["GPUs", "images of each", "steps an epoch", "first epoch, s", "an epoch, s (projected)", "computing, %"]
    head += [f"lost to {cause}, %" for cause in causes] + ["costs most", "copying to all nodes, s"]
    rows = []
    for one in record["results"]:
        seconds = [f"{one[key]:.1f}" for key in ("first_seconds", "epoch_seconds")]
        lost = [f"{100 * one['lost'][cause]:.1f}" for cause in causes]
        named = one["first"] or "nothing"
        counts = [str(one[key]) for key in ("gpus", "local", "steps")]
        rows.append([*counts, *seconds, f"{100 * one['efficiency']:.0f}", *lost, named, f"{one['copy_seconds']:.0f}"])
    return table(head, rows)


def _breaks(record: dict[str, Any]) -> str:
    rows = [
        [cause, "-" if gpus is None else str(gpus), REMEDIES[cause]]
        for cause, gpus in sorted(record["breaks"].items(), key=lambda one: (one[1] is None, one[1] or 0))
    ]
    return table(["cause", f"costs {WORTH_NAMING:.0%} from, GPUs (projected)", "what to do"], rows)


def _engines(record: dict[str, Any]) -> str:
    return table(
        ["engine", "cores for each GPU (projected)"],
        [[name, f"{cores:.1f}"] for name, cores in sorted(record["engines"].items(), key=lambda one: one[1])],
    )


def _inputs(record: dict[str, Any]) -> str:
    rows = [[one["name"], f"{one['value']:,.7g}", one["unit"], one["source"]] for one in record["inputs"]]
    return table(["input", "value", "unit", "source"], rows)

"""The tables of a record of fixes: accuracy and activations over test resolutions, what learns, time of an epoch."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.harness.stats import differences, spread_of


def finetune_table(record: dict[str, Any]) -> str:
    """Markdown: three tables, over the networks of a record of `benchmarks.finetuning`."""
    networks = record["networks"]
    num = f"{len(networks)} networks, mean ± standard deviation" if len(networks) > 1 else "One network"
    return "\n\n".join(
        [_sweep(networks), _variants(networks), _times(networks), f"{num}; differences network by network."]
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _sweep(networks: list[dict[str, Any]]) -> str:
    """Before any finetune: accuracy and activations by test resolution."""
    train_res = networks[0]["train_res"]
    head = [f"trained at {train_res} px, tested at", "top-1, %", "zeros, %", f"distance to {train_res} px"]
    rows = []
    for side in sorted(map(int, networks[0]["before"])):
        seen = [next(one for one in net["activations"] if one["test_res"] == side) for net in networks]
        rows.append(
            [
                f"{side} px",
                spread_of([net["before"][str(side)] for net in networks]).text(100, 1),
                spread_of([one["zero_share"] for one in seen]).text(100, 2),
                spread_of([one["distance"] for one in seen]).text(1, 4),
            ]
        )
    return _table(head, rows)


def _variants(networks: list[dict[str, Any]]) -> str:
    """After each kind of fix at the resolution that it was for."""
    sides = sorted({finetune["test_res"] for finetune in networks[0]["finetunings"]})
    head = [
        "finetune",
        *(f"{side} px: top-1, %" if part == 0 else "gain, points" for side in sides for part in range(2)),
    ]
    names = list(dict.fromkeys(finetune["variant"] for finetune in networks[0]["finetunings"]))
    rows = [["none", *(text for side in sides for text in (_before(networks, side), "0"))]]
    for name in names:
        row = [name]
        for side in sides:
            after = [_finetune(net["finetunings"], name, side)["top1"] for net in networks]
            gain = differences(after, [net["before"][str(side)] for net in networks])
            row += [spread_of(after).text(100, 1), gain.text(100, 1, "+")]
        rows.append(row)
    return _table(head, rows)


def _before(networks: list[dict[str, Any]], side: int) -> str:
    return spread_of([net["before"][str(side)] for net in networks]).text(100, 1)


def _finetune(finetunings: list[dict[str, Any]], name: str, side: int) -> dict[str, Any]:
    return next(finetune for finetune in finetunings if finetune["variant"] == name and finetune["test_res"] == side)


def _times(networks: list[dict[str, Any]]) -> str:
    """Seconds of the first epoch and of the later ones, with and without keeping what the frozen layers gave."""
    head = ["fixed for", "first epoch, s", "later ones, s", "later ones without the cache, s", "times faster"]
    head += ["top-1 less that without the cache, points"]
    rows = []
    for other in networks[0]["uncached"]:
        name, side = other["variant"], other["test_res"]
        cached = [_finetune(net["finetunings"], name, side) for net in networks]
        plain = [_finetune(net["uncached"], name, side) for net in networks]
        first = [finetune["epoch_seconds"][0] for finetune in cached]
        later, without = (
            [statistics.median(finetune["epoch_seconds"][1:]) for finetune in finetunings]
            for finetunings in (cached, plain)
        )
        faster = spread_of([b / a for a, b in zip(later, without, strict=True)])
        change = differences([finetune["top1"] for finetune in cached], [finetune["top1"] for finetune in plain])
        rows.append(
            [
                f"{side} px",
                spread_of(first).text(1, 2),
                spread_of(later).text(1, 2),
                spread_of(without).text(1, 2),
                faster.text(1, 0),
                change.text(100, 2, "+"),
            ]
        )
    return _table(head, rows)

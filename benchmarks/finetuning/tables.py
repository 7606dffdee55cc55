"""The tables of a finetuning record: accuracy and activations by resolution, trainable layers, time of an epoch."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.harness.stats import Spread, differences, spread_of
from benchmarks.harness.tables import markdown


def finetuning_table(record: dict[str, Any]) -> str:
    """Markdown: three tables over the networks of a record."""
    networks = record["networks"]
    if not networks:
        return "No network was finished."
    num = f"{len(networks)} networks, mean ± standard deviation" if len(networks) > 1 else "One network"
    tables = [markdown(rows(networks)) for rows in (_sweep, _variants, _times)]
    return "\n\n".join([*tables, f"{num}; differences network by network."])


def _sweep(networks: list[dict[str, Any]]) -> list[list[str]]:
    """Accuracy and activations by test resolution, before fine-tuning."""
    train_res = networks[0]["train_res"]
    rows = [[f"trained at {train_res} px, tested at", "top-1, %", "zeros, %", f"distance to {train_res} px"]]
    for side in sorted(map(int, networks[0]["before"])):
        activations = [next(one for one in net["activations"] if one["test_res"] == side) for net in networks]
        zeros, distance = (spread_of([one[key] for one in activations]) for key in ("zero_share", "distance"))
        rows.append([f"{side} px", _before(networks, side).text(100, 1), zeros.text(100, 2), distance.text(1, 4)])
    return rows


def _variants(networks: list[dict[str, Any]]) -> list[list[str]]:
    """Accuracy after each kind of fine-tuning, at the resolution it was made for."""
    sides = sorted({one["test_res"] for one in networks[0]["finetunings"]})
    head, none = ["fine-tuning"], ["none"]
    for side in sides:
        head += [f"{side} px: top-1, %", "delta top-1 (percentage points)"]
        none += [_before(networks, side).text(100, 1), "0"]
    rows = [head, none]
    for name in dict.fromkeys(one["variant"] for one in networks[0]["finetunings"]):
        row = [name]
        for side in sides:
            after = [_of(net["finetunings"], name, side)["top1"] for net in networks]
            delta = differences(after, [net["before"][str(side)] for net in networks])
            row += [spread_of(after).text(100, 1), delta.text(100, 1, "+")]
        rows.append(row)
    return rows


def _before(networks: list[dict[str, Any]], side: int) -> Spread:
    return spread_of([net["before"][str(side)] for net in networks])


def _of(finetunings: list[dict[str, Any]], name: str, side: int) -> dict[str, Any]:
    return next(one for one in finetunings if one["variant"] == name and one["test_res"] == side)


def _times(networks: list[dict[str, Any]]) -> list[list[str]]:
    """Seconds of the first epoch and of later ones, with and without the cache of the frozen layers' features."""
    rows = [["fine-tuned for", "first epoch, s", "later ones, s", "later ones without the cache, s", "speed-up",
             "delta top-1 to that without the cache (percentage points)"]]  # fmt: skip
    for other in networks[0]["uncached"]:
        name, side = other["variant"], other["test_res"]
        cached, plain = ([_of(net[key], name, side) for net in networks] for key in ("finetunings", "uncached"))
        later, without = ([statistics.median(one["epoch_seconds"][1:]) for one in runs] for runs in (cached, plain))
        first = spread_of([one["epoch_seconds"][0] for one in cached])
        speedup = spread_of([slow / fast for fast, slow in zip(later, without, strict=True)])
        delta = differences([one["top1"] for one in cached], [one["top1"] for one in plain])
        seconds = [spread.text(1, 2) for spread in (first, spread_of(later), spread_of(without))]
        rows.append([f"{side} px", *seconds, speedup.text(1, 0), delta.text(100, 2, "+")])
    return rows

"""The tables of a record of published weights, and what follows from them, with paired intervals over the folds."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.stats import Spread, differences, spread_of
from benchmarks.harness.tables import markdown

_FIXRES = ("classifier", "classifier and BatchNorm", "last block")


def published_table(record: dict[str, Any]) -> str:
    """Markdown: for each network its sweep, its fine-tunings and the conclusions."""
    parts = []
    for network in record["networks"]:
        if not network["resolutions"]:
            continue
        title = f"**{network['network']}**, trained at {network['train_res']} px, weights from `{network['source']}`"
        title += f", {network['interpolation']}"
        parts += [f"{title}:", markdown(_sweep(network))]
        if finetuned(network) and _of(network, network["train_res"]):
            parts.append(markdown(_finetunings(network)))
            parts.append("\n".join(f"* {line}" for line in conclusions(network)))
    tested, further, folds = (record[f"num_{name}"] for name in ("tested", "further", "folds"))
    parts.append(
        f"{tested} tested pictures in {folds} folds, fine-tuned on the other folds and {further} further pictures; "
        "differences fold by fold, with 95 % intervals (Student's) in brackets. Scored among all 1000 outputs."
    )
    return "\n\n".join(parts)


def finetuned(network: dict[str, Any]) -> list[dict[str, Any]]:
    """The resolutions that have fine-tunings, rising."""
    return [one for one in network["resolutions"] if "finetunings" in one]


def _of(network: dict[str, Any], test_res: int) -> dict[str, Any] | None:
    return next((one for one in network["resolutions"] if one["test_res"] == test_res), None)


def _sweep(network: dict[str, Any]) -> list[list[str]]:
    rows = [["tested at", "top-1, %", "NLL", "calibration error, %", "zeros, %", "distance of activations"]]
    for one in network["resolutions"]:
        activations = one["activations"]
        rows.append([
            f"{one['test_res']} px",
            f"{100 * spread_of(one['top1']).mean:.1f}",
            f"{spread_of(one['nll']).mean:.2f}",
            f"{100 * one['calibration_error']:.1f}",
            f"{100 * activations['zero_share']:.1f}",
            f"{activations['distance']:.3f}",
        ])  # fmt: skip
    return rows


def _finetunings(network: dict[str, Any]) -> list[list[str]]:
    head = ["weights"]
    for one in finetuned(network):
        head += [f"{one['test_res']} px: top-1, %", "delta top-1 (percentage points)", "NLL"]
    rows = [head]
    for name in _variants(network):
        row = [name]
        for one in finetuned(network):
            if name not in ("none", *(other["variant"] for other in one["finetunings"])):
                row += ["-", "", ""]  # the last block is fine-tuned at one resolution only
                continue
            found = variant(one, name)
            delta = differences(found["top1"], one["top1"])
            row += [f"{100 * spread_of(found['top1']).mean:.1f}", "0" if name == "none" else gain(delta)]
            row.append(f"{spread_of(found['nll']).mean:.2f}")
        rows.append(row)
    return rows


def _variants(network: dict[str, Any]) -> list[str]:
    """The rows of all fine-tuned resolutions, in the order of the one that has most."""
    most = max(finetuned(network), key=lambda one: len(one["finetunings"]))
    return ["none", *(one["variant"] for one in most["finetunings"])]


def variant(resolution: dict[str, Any], name: str) -> dict[str, Any]:
    """The figures of one adaptation or fine-tuning; "none" is the network as published."""
    if name == "none":
        return resolution
    return next(one for one in resolution["finetunings"] if one["variant"] == name)


def gain(delta: Spread) -> str:
    """A difference of accuracies with its interval, in percentage points."""
    return f"{100 * delta.mean:+.1f} ({delta.interval(100, 1, '+')})"


def best(network: dict[str, Any]) -> dict[str, Any]:
    """The resolution with the highest accuracy as published."""
    return max(network["resolutions"], key=lambda one: spread_of(one["top1"]).mean)


def conclusions(network: dict[str, Any]) -> list[str]:
    """What the figures say and what they do not; a gain only where its interval excludes zero."""
    train, top = _of(network, network["train_res"]), best(network)
    assert train is not None
    lines = [
        f"As published it is best at {top['test_res']} px, {top['test_res'] / network['train_res']:.2f} times the "
        f"training size: {gain(differences(top['top1'], train['top1']))} against {train['test_res']} px"
        f"{'' if top is train else _verdict(differences(top['top1'], train['top1']))}."
    ]
    name = "classifier and BatchNorm"
    for one in finetuned(network):
        if one is not train:
            lines.append(_regained(network, train, one, name))
            beyond = differences(variant(one, name)["top1"], train["top1"])
            lines.append(
                f"{one['test_res']} px after FixRes fine-tuning ({name}) against {train['test_res']} px as published: "
                f"{gain(beyond)}{_verdict(beyond)}."
            )
    return lines


def _regained(network: dict[str, Any], train: dict[str, Any], one: dict[str, Any], name: str) -> str:
    """How much of the loss at a larger resolution is left, against the same fine-tuning at the training resolution."""
    lost = differences(one["top1"], train["top1"])
    left = differences(variant(one, name)["top1"], variant(train, name)["top1"])
    line = (
        f"{one['test_res']} px ({one['test_res'] / network['train_res']:.1f} times) against {train['test_res']} px: "
        f"{gain(lost)} as published, {gain(left)} if both are fine-tuned ({name})"
    )
    if lost.high is None or lost.high >= 0:
        return f"{line}; as published nothing is certainly lost there."
    share = 1 - left.mean / lost.mean
    return f"{line}: fine-tuning for the size regains {share:.0%} of the loss."


def _verdict(delta: Spread) -> str:
    if delta.low is None or delta.high is None or delta.low <= 0 <= delta.high:
        return ", no certain difference"
    return ", a gain" if delta.low > 0 else ", a loss"

"""Records as Markdown: what README and documents quote, so that no figure is typed by hand."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.finetuning.table import finetune_table
from benchmarks.harness.records import RESULTS, read_record
from benchmarks.savings.table import savings_table
from benchmarks.scaling.table import fault_tolerance_table, scaling_table
from benchmarks.tricks.speed_table import tricks_speed_table
from benchmarks.tricks.table import tricks_table
from pipelines.spec import InputError

# Engines of the feeding table, in this order: those that decode stored photographs.
_FED_BY = ("roc", "roc-dali", "ffcv", "dali", "torch", "spdl", "webdataset")


def training_table(record: dict[str, Any]) -> str:
    """Finished runs: a row for each engine and variant, mean and standard deviation over seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    for one in record["runs"]:
        for variant in one["variants"]:
            groups[one["data"]["engine"], variant["name"]].append(variant)
        if one["savings"]:
            ratios[one["data"]["engine"]].append(one["savings"]["train_time_ratio"])
    lines = [
        "| engine | variant | n | trained at | tested at | top-1 before fix, % | top-1, % | class mean, % | "
        "training + fix, s | share of the baseline's clock |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (engine, name), variants in groups.items():
        first, clock = (
            variants[0]["train_res_by_epoch"][0],
            [variant["train_seconds"] + variant["finetune_seconds"] for variant in variants],
        )
        trained = f"{first}" if first == variants[0]["train_res"] else f"{first} to {variants[0]['train_res']}"
        share = spread(ratios[engine], 1, 2) if name == "fast" and ratios[engine] else "1"
        cells = [engine, name, str(len(variants)), f"{trained} px", f"{variants[0]['test_res']} px"]
        cells += [
            spread([variant[key] for variant in variants], 100, 1)
            for key in ("top1_before_finetune", "top1", "class_mean_top1")
        ]
        lines.append("| " + " | ".join([*cells, spread(clock, 1, 0), share]) + " |")
    return "\n".join(lines)


def throughput_table(record: dict[str, Any]) -> str:
    """Engines by resolution: images a second, and how many times faster `roc` is, medians and ranges of rounds."""
    resolutions = record["settings"]["res"]
    lines = [
        "| engine | KB read | " + " | ".join(f"{side} px, images/s | roc is faster by" for side in resolutions) + " |",
        "|---" * (2 + 2 * len(resolutions)) + "|",
    ]
    for engine in record["settings"]["engines"]:
        row = [result for result in record["results"] if result["engine"] == engine]
        if not row:
            continue  # interrupted before its turn, or measured cold only
        read = [result["bytes_per_image"] for result in row]
        cells = [engine, "-" if None in read else " / ".join(f"{value / 1000:.0f}" for value in read)]
        for result in row:
            cells += [f"{result['images_per_second']:.0f}", _faster(record, engine, result["res"])]
        cells += ["-"] * (2 * (len(resolutions) - len(row)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _faster(record: dict[str, Any], engine: str, resolution: int) -> str:
    for ratio in record["ratios"]:
        if (ratio["engine"], ratio["against"], ratio["res"]) == ("roc", engine, resolution):
            # Records of version 1 have the range of the rounds, later ones an interval.
            value, low, high = (
                (ratio["ratio"], *ratio["interval"])
                if "ratio" in ratio
                else (ratio["median"], ratio["lowest"], ratio["highest"])
            )
            return f"{value:.1f} ({low:.1f} to {high:.1f})"
    return "1"


def conversion_table(record: dict[str, Any]) -> str:
    """Writers by speed, against FFCV's own."""
    lines = ["| writer | images/s | against FFCV's writer | MB |", "|---|---|---|---|"]
    for result in record["results"]:
        low, high = result["against_ffcv_spread"]
        ratio = f"{result['against_ffcv']:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {result['writer']} | {result['images_per_second']:.0f} | {ratio} | {result['bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def fidelity_table(record: dict[str, Any]) -> str:
    """How far crops of engine roc are from Pillow's."""
    lines = [
        "| px | crops | full level: mean difference, gray levels | worst crop's mean | from the half level, % | "
        "there: mean PSNR, dB | 5th percentile | worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in record["figures"]:
        full = [one["full_level_mean_difference"], one["full_level_worst_mean_difference"]]
        half = [one["coarse_mean_psnr"], one["coarse_psnr_5th_percentile"], one["coarse_worst_psnr"]]
        cells = [str(one["res"]), str(one["num_crops"]), *(f"{value:.2f}" for value in full)]
        cells += [f"{100 * one['coarse_share']:.0f}", *("-" if value is None else f"{value:.1f}" for value in half)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def train_step_table(record: dict[str, Any], throughput: dict[str, Any] | None = None) -> str:
    """Networks by resolution, and how many loader cores of the throughput record's machine each engine would need."""
    cores = _images_per_core(throughput) if throughput else {}
    engines = sorted({engine for engine, _ in cores}, key=_FED_BY.index)
    lines = [
        "| network | px | images/s | GFLOP/image | share of peak |"
        + "".join(f" cores for {name} |" for name in engines),
        "|---" * (5 + len(engines)) + "|",
    ]
    for one in record["results"]:
        cells = [one["model"], str(one["res"]), f"{one['images_per_second']:.0f}"]
        cells += [f"{one['train_gflops_per_image']:.1f}", f"{one['share_of_peak']:.2f}"]
        for engine in engines:
            speed = cores.get((engine, one["res"]))
            cells.append("-" if speed is None else f"{one['images_per_second'] / speed:.2g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _images_per_core(throughput: dict[str, Any]) -> dict[tuple[str, int], float]:
    """Images a second of one core, by engine and resolution; raw pixels and strangers left out."""
    threads = throughput["settings"]["threads"]
    return {
        (one["engine"], one["res"]): one["images_per_second"] / threads
        for one in throughput["results"]
        if one["engine"] in _FED_BY
    }


def fed_step_table(record: dict[str, Any]) -> str:
    """Training steps fed by each engine, as a share of those with data at hand."""
    lines = ["| px | fed by | images/s | share of the ceiling | interval |", "|---|---|---|---|---|"]
    for one in record["results"]:
        low, high = one["share_interval"]
        lines.append(
            f"| {one['res']} | {one['engine']} | {one['images_per_second']:.0f} | {one['share']:.3f} "
            f"| {low:.3f} to {high:.3f} |"
        )
    return "\n".join(lines)


def feeding_table(record: dict[str, Any]) -> str:
    """Microseconds for each image of the steps between a file and pixels, by resolution."""
    names = list(record["results"][0]["microseconds"])
    lines = ["| px | KB a cut | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for one in record["results"]:
        times = (f"{statistics.median(one['microseconds'][name]):.0f}" for name in names)
        lines.append(f"| {one['res']} | {one['bytes_per_image'] / 1000:.0f} | " + " | ".join(times) + " |")
    return "\n".join(lines)


def jpeg_backends_table(record: dict[str, Any]) -> str:
    """How many files of each kind every JPEG decoder takes, how far from Pillow's pixels, how fast."""
    lines = ["| decoder | files | taken | mean difference | largest | images/s |", "|---|---|---|---|---|---|"]
    for one in record["results"]:
        cells = [one["backend"], one["files"], f"{one['num_taken']} of {one['num']}"]
        if one["num_taken"]:
            cells += [f"{one['mean_difference']:.2f}", str(one["largest_difference"])]
            cells.append(f"{one['images_per_second']:.0f}")
        else:
            cells += [one["reason"], "-", "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "training": training_table,
    "throughput": throughput_table,
    "conversion": conversion_table,
    "fidelity": fidelity_table,
    "train_step": train_step_table,
    "savings": savings_table,
    "finetune": finetune_table,
    "fed_step": fed_step_table,
    "feeding": feeding_table,
    "jpeg_backends": jpeg_backends_table,
    "tricks": tricks_table,
    "tricks_speed": tricks_speed_table,
    "scaling": scaling_table,
    "fault_tolerance": fault_tolerance_table,
}


def spread(values: list[float], factor: float, digits: int) -> str:
    """Mean and, of several, the standard deviation."""
    mean = f"{factor * statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {factor * statistics.stdev(values):.{digits}f}"


def section(record: dict[str, Any], root: str = "") -> str:
    """A record's table with the conditions under which it was measured; `root` leads from the document to the tree."""
    environments = [one["environment"] for one in record["runs"]] if "runs" in record else [record["environment"]]
    first, file = environments[0], f"benchmarks/results/{record['name']}.json"
    commits = sorted({str(one["commit"])[:7] for one in record.get("trainings", environments)})
    where = f"{first['num_cores']} cores of {first['cpu']}, {first['gpu'] or 'no GPU'}"
    note = f" {record['note']}" if record.get("note") else ""
    verb = "Projected, not measured, on" if record.get("projected") else "Measured on"
    return (
        f"{_TABLES[record['kind']](record)}\n\n"
        f"{verb} {where}, torch {first['versions']['torch']}, commit {', '.join(commits)}.{note} "
        f"Record: [{file}]({root}{file})."
    )


def render(text: str, results: Path = RESULTS, root: str = "") -> str:
    """Fills a Markdown text's blocks `<!-- NAME:begin -->` to `<!-- NAME:end -->` from the records of that name."""
    for path in sorted(results.glob("*.json")):
        begin, end = f"<!-- {path.stem}:begin -->", f"<!-- {path.stem}:end -->"
        if begin not in text:
            continue
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise InputError(f"the block {begin} has no {end}; add it")
        text = f"{before}{begin}\n{section(read_record(path), root)}\n{end}{after}"
    return text


def documents() -> dict[Path, str]:
    """The documents with such blocks, and what leads from each to the tree's root."""
    tree = RESULTS.parents[1]
    return {tree / "README.md": "", **dict.fromkeys(sorted((tree / "docs").glob("*.md")), "../")}

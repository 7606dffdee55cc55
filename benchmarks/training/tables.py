"""The tables of finished runs and of training steps, for documents and terminal."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any

from benchmarks.harness.stats import differences, ratios, spread_of
from benchmarks.harness.tables import Rows, markdown, number, span, with_interval

# Engines of the table of loader cores, in this order: those that decode stored photographs.
_DECODING = ("roc", "roc-gpu", "roc-dali", "ffcv", "dali", "torch", "spdl", "webdataset")


def training_table(record: dict[str, Any]) -> str:
    """Markdown: finished runs, a row for each engine and variant, mean and standard deviation over seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    for one in record["runs"]:
        for variant in one["variants"]:
            groups[one["data"]["engine"], variant["name"]].append(variant)
        if one["savings"]:
            ratios[one["data"]["engine"]].append(one["savings"]["train_time_ratio"])
    rows = [["engine", "variant", "n", "trained at", "tested at", "top-1 before fine-tuning, %", "top-1, %",
             "class mean, %", "training + fine-tuning, s", "relative training time"]]  # fmt: skip
    for (engine, name), variants in groups.items():
        relative = ratios[engine] if name == "fast" else []
        rows.append([engine, name, *_variant_cells(variants), spread_of(relative).text(1, 2) if relative else "1"])
    return markdown(rows)


def _variant_cells(variants: list[dict[str, Any]]) -> list[str]:
    one = variants[0]
    first, last = one["train_res_by_epoch"][0], one["train_res"]
    trained = f"{first} px" if first == last else f"{first} to {last} px"
    accuracies = [
        spread_of([variant[key] for variant in variants]).text(100, 1)
        for key in ("top1_before_finetune", "top1", "class_mean_top1")
    ]
    seconds = spread_of([variant["train_seconds"] + variant["finetune_seconds"] for variant in variants])
    return [str(len(variants)), trained, f"{one['test_res']} px", *accuracies, seconds.text(1, 0)]


def train_step_rows(record: dict[str, Any], throughput: dict[str, Any] | None = None) -> Rows:
    """Networks by resolution, and how many loader cores of the throughput record's machine each engine would need."""
    per_core = _images_per_core(throughput) if throughput else {}
    engines = sorted({engine for engine, _ in per_core}, key=_DECODING.index)
    rows = [["network", "px", "images/s", "GFLOP/image", "share of peak", *(f"cores for {name}" for name in engines)]]
    for one in record["results"]:
        speed = one["images_per_second"]
        cells = [one["model"], str(one["res"]), number(speed)]
        cells += [number(one["train_gflops_per_image"], 1), number(one["share_of_peak"], 2)]
        cores = [per_core.get((engine, one["res"])) for engine in engines]
        rows.append(cells + ["-" if core is None else f"{speed / core:.2g}" for core in cores])
    return rows


def train_step_table(record: dict[str, Any], throughput: dict[str, Any] | None = None) -> str:
    """Markdown of `train_step_rows`."""
    return markdown(train_step_rows(record, throughput))


def _images_per_core(throughput: dict[str, Any]) -> dict[tuple[str, int], float]:
    """Images/s of one core, by engine and resolution; engines that read raw pixels are left out."""
    threads = throughput["settings"]["threads"]
    return {
        (one["engine"], one["res"]): one["images_per_second"] / threads
        for one in throughput["results"]
        if one["engine"] in _DECODING
    }


def end_to_end_step_table(record: dict[str, Any]) -> str:
    """Markdown: speed of training steps with batches of each engine, relative to a batch on the device."""
    rows = [["px", "engine", "images/s", "relative speed", "interval"]]
    for one in record["results"]:
        relative = [number(one["relative_speed"], 3), span(one["relative_speed_interval"], 3)]
        rows.append([str(one["res"]), one["engine"], number(one["images_per_second"]), *relative])
    return markdown(rows)


def allocator_table(record: dict[str, Any]) -> str:
    """Markdown: what keeping freed memory brings, with times of both settings for 100 images and their peak memory."""
    rows = [["work", "network", "px", "images/s, relative", "CPU seconds, relative", "default: user + system s per 100",
             "kept", "peak memory, GB", "kept"]]  # fmt: skip
    for one in record["results"]:
        speed = with_interval(one["speedup"], one["speedup_interval"], 2)
        cells = [one["kind"], one["model"] or "demo's", str(one["res"]), speed, number(1 / one["cpu_speedup"], 2)]
        cells += [_cpu_cell(one["passes"][setting], one["num_images"]) for setting in ("default", "kept")]
        peaks = [median(each["peak_bytes"] for each in one["passes"][setting]) for setting in ("default", "kept")]
        rows.append([*cells, *(number(peak, 2, 1e-9) for peak in peaks)])
    return markdown(rows)


def _cpu_cell(passes: list[dict[str, Any]], num_images: int) -> str:
    times = [median(one[key] for one in passes) for key in ("user_seconds", "system_seconds")]
    return " + ".join(number(seconds, 1, 100 / num_images) for seconds in times)


def timm_loop_table(record: dict[str, Any]) -> str:
    """Markdown: timm's loop with each loader, mean and standard deviation over seeds, and the pairs of seeds."""
    by_loader: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for one in record["results"]:
        by_loader[one["loader"]][one["seed"]] = one
    rows = [["loader", "n", "top-1, %", "delta top-1 (percentage points)", "95 % interval", "without EMA, %",
             "relative training time"]]  # fmt: skip
    reference = by_loader["timm"]
    for name, trainings in by_loader.items():
        seeds = [seed for seed in trainings if seed in reference]
        pairs = {key: ([trainings[seed][key] for seed in seeds], [reference[seed][key] for seed in seeds])
                 for key in ("top1", "train_seconds")}  # fmt: skip
        top1, other = (spread_of([one[key] for one in trainings.values()]) for key in ("top1", "top1_without_ema"))
        cells = ["", "", "1"]
        if name != "timm" and seeds:
            delta = differences(*pairs["top1"])
            cells = [delta.text(100, 1, "+"), delta.interval(100, 1, "+"), ratios(*pairs["train_seconds"]).text(1, 2)]
        rows.append([name, str(top1.num), top1.text(100, 1), *cells[:2], other.text(100, 1), cells[2]])
    return markdown(rows)

"""The tables of records about single engines, for documents and terminal."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.harness.tables import markdown, number, with_interval
from fixres.observability.console import aligned


def conversion_table(record: dict[str, Any]) -> str:
    """Markdown: writers by speed, compared with FFCV's own."""
    rows = [["writer", "images/s", "speed-up over FFCV's writer", "MB"]]
    for one in record["results"]:
        speedup = with_interval(one["speedup_over_ffcv"], one["speedup_over_ffcv_interval"], 2)
        rows.append([one["writer"], number(one["images_per_second"]), speedup, number(one["bytes"], 0, 1e-6)])
    return markdown(rows)


def indexing_table(record: dict[str, Any]) -> str:
    """Markdown: CPU time of the ways to read untouched images, relative to whole decoding; below, the index's share."""
    rows = [["work", "CPU time an image, us", "times libjpeg-turbo's decoding", "times an epoch of whole images"]]
    for one in record["results"]:
        ratios = [with_interval(one[key], one[f"{key}_interval"], 2) for key in ("against_decode", "against_whole")]
        rows.append([one["name"], number(one["cpu_us_per_image"]), *ratios])
    share = 100 * record["index_bytes"] / record["image_bytes"]
    return f"{markdown(rows)}\n\nThe index takes {share:.2f} % of the images' bytes."


def fidelity_table(record: dict[str, Any]) -> str:
    """Markdown of `fidelity_rows`."""
    return markdown(fidelity_rows(record))


def fidelity_rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for each resolution: how far crops of engine roc are from Pillow's."""
    rows = [["px", "crops", "full level: mean difference, gray levels", "worst crop's mean", "from the half level, %",
             "half level: mean PSNR, dB", "5th percentile", "worst"]]  # fmt: skip
    for one in record["figures"]:
        full = [number(one[key], 2) for key in ("full_level_mean_difference", "full_level_worst_mean_difference")]
        coarse = ("coarse_mean_psnr", "coarse_psnr_5th_percentile", "coarse_worst_psnr")
        share = number(one["coarse_share"], 0, 100)
        rows.append([str(one["res"]), str(one["num_crops"]), *full, share, *(number(one[key], 1) for key in coarse)])
    return rows


def agreement_rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for each engine, kind of crops and resolution: differences from Pillow's pixels and labels."""
    rows = [["engine", "crops", "px", "number", "mean difference", "worst crop's mean", "mean PSNR, dB",
             "5th percentile", "worst", "labels agree"]]  # fmt: skip
    for one in record["engines"]:
        shown = [number(one[key], 2) for key in ("mean_difference", "worst_mean_difference")]
        shown += [number(one[key], 1) for key in ("mean_psnr", "psnr_5th_percentile", "worst_psnr")]
        labels = f"{100 * one['label_agreement']:.1f} %"
        rows.append([one["engine"], one["crops"], str(one["res"]), str(one["num_crops"]), *shown, labels])
    return rows


def fidelity_text(record: dict[str, Any]) -> str:
    """Both tables of a fidelity record for the terminal."""
    text = "\n".join(aligned(agreement_rows(record)))
    return f"{text}\n\n{fidelity_table(record)}" if record["figures"] else text


def dali_stages_table(record: dict[str, Any]) -> str:
    """Markdown: microseconds for each image of the steps from file to pixels, by resolution."""
    return _microseconds_table(record, "KB a cut")


def gpu_staging_table(record: dict[str, Any]) -> str:
    """Markdown: microseconds of the host for each crop of engine `roc-gpu`, and of engine `roc`, by resolution."""
    return _microseconds_table(record, "KB a crop", 1)


_IMAGENET_TRAIN = 1_281_167  # images


def stored_sizes_table(record: dict[str, Any]) -> str:
    """Markdown: bytes of stored images, and PSNR of crops against those of the original photographs."""
    sides = [one["res"] for one in record["results"][0]["crops"]] if record["results"] else []
    rows = [["--preset", "--max-side", "--quality", "KB an image", "GB for ImageNet's training images",
             *(f"{side} px: mean PSNR, dB (5th percentile)" for side in sides)]]  # fmt: skip
    for one in record["results"]:
        kilobytes, gigabytes = (number(one["bytes_per_image"], 0, scale) for scale in (1e-3, 1e-9 * _IMAGENET_TRAIN))
        crops = [f"{crop['mean_psnr']:.1f} ({crop['psnr_5th_percentile']:.1f})" for crop in one["crops"]]
        how = (one["preset"] or "-", str(one["max_side"]), str(one["quality"]))
        rows.append([*how, kilobytes, gigabytes, *crops])
    return markdown(rows)


def _microseconds_table(record: dict[str, Any], size: str, digits: int = 0) -> str:
    names = list(record["results"][0]["microseconds"]) if record["results"] else []
    rows = [["px", size, *names]]
    for one in record["results"]:
        times = [number(statistics.median(one["microseconds"][name]), digits) for name in names]
        rows.append([str(one["res"]), number(one["bytes_per_image"], 0, 1e-3), *times])
    return markdown(rows)


def crop_index_table(record: dict[str, Any]) -> str:
    """Markdown: scan, full decoding and crops in microseconds, bytes of the index, fidelity of cheaper crops."""
    names = ["index", "scaled", "coarse", "roc", "whole"]
    rows = [["files", "KB", "index, %", "coarse, %", "scan", "full decoding", "px", *names]]
    rows[0] += [f"{kind}, {what}" for kind in ("scaled", "coarse") for what in ("%", "dB", "dB, 5th percentile")]
    for one in record["results"]:
        medians = [number(statistics.median(one["microseconds"][name])) for name in ("scan", "decode")]
        shares = [number(one[name], 2, 100) for name in ("index_share", "coarse_share")]
        cells = [one["files"], number(one["bytes_per_image"], 0, 1e-3), *shares, *medians]
        for crop in one["crops"]:
            times = [number(statistics.median(crop["microseconds"][name])) for name in names]
            rows.append([*cells, str(crop["res"]), *times, *_fidelity(crop), *_fidelity(crop["coarse"])])
    return markdown(rows)


def _fidelity(crops: dict[str, Any]) -> list[str]:
    psnr = [number(crops[name], 1) if name in crops else "-" for name in ("psnr_mean", "psnr_5th_percentile")]
    return [number(crops["share_scaled"], 0, 100), *psnr]


FORMS = {
    "roc-index": "untouched, index",
    "roc-coarse": "untouched, index with coarse levels",
    "torchvision": "untouched, torchvision",
    "dali": "untouched, DALI",
    "roc": "RoC",
    "ffcv": "FFCV, JPEG",
    "ffcv-raw": "FFCV, raw pixels",
}
"""Engines of `benchmarks.loaders.formats`, and the form of the photographs that each reads."""


def formats_table(record: dict[str, Any]) -> str:
    """Markdown: the forms of the same photographs, with their costs and their fidelity."""
    sides, num = record["settings"]["res"], record["settings"]["num_images"]
    rows = [["form", "KB an image", "preparation, ms an image", "first batch, s"]]
    rows[0] += [f"{side} px: images/s" for side in sides] + [f"{side} px: dB" for side in sides]
    first = {one["engine"]: one["first_batch_seconds"] for one in record["startup"]}
    for engine in record["settings"]["engines"]:
        seconds = record["preparation_seconds"][engine]
        cells = [FORMS[engine], number(record["file_bytes"][engine], 0, 1e-3 / num)]
        cells += ["-" if seconds is None else number(seconds, 1, 1e3 / num), number(first[engine], 2)]
        speeds = {one["res"]: one["images_per_second"] for one in record["results"] if one["engine"] == engine}
        psnr = {one["res"]: one["mean_psnr"] for one in record["fidelity"] if one["engine"] == engine}
        rows.append(
            [*cells, *(number(speeds.get(side)) for side in sides), *(number(psnr.get(side), 1) for side in sides)]
        )
    return markdown(rows)


def datasets_table(record: dict[str, Any]) -> str:
    """Markdown: images/s of each data set in a DataLoader, and the ratio to ImageFolder."""
    return _datasets_table(record["results"])


def datasets_summary(record: dict[str, Any]) -> str:
    """As `datasets_table`, without several crops of an image."""
    single = [one for one in record["results"] if "cost_of_views" not in one and isinstance(one["res"], int)]
    return _datasets_table(single)


def _datasets_table(results: list[dict[str, Any]]) -> str:
    rows = [["px", "JPEG files", "data set", "images/s", "times ImageFolder", "cost of the views, times one view"]]
    for one in results:
        low, high = one["relative_speed_interval"]
        speed = f"{one['relative_speed']:.1f} ({low:.1f} to {high:.1f})"
        cost = number(one["cost_of_views"], 2) if "cost_of_views" in one else "-"
        cells = [str(one["res"]), one.get("jpeg_files", "encoded"), one["name"], number(one["images_per_second"])]
        rows.append([*cells, speed, cost])
    return markdown(rows)


def nvjpeg_backends_table(record: dict[str, Any]) -> str:
    """Markdown: for each decoder and kind of files how many it accepts, differences from Pillow's pixels, speed."""
    rows = [["decoder", "files", "accepted", "mean difference", "largest", "images/s"]]
    for one in record["results"]:
        cells = [one["backend"], one["files"], f"{one['num_accepted']} of {one['num']}"]
        if one["num_accepted"]:
            speed = number(one["images_per_second"])
            cells += [number(one["mean_difference"], 2), str(one["largest_difference"]), speed]
        else:
            cells += [one["reason"], "-", "-"]
        rows.append(cells)
    return markdown(rows)

"""Old names of settings and record keys. Recipes, run folders and reports with them are still read.

Old options are answered with the new ones.
"""

from __future__ import annotations

from typing import Any

RENAMED = {
    "arms": "variants",
    "arm": "variant",
    "fix": "finetune",
    "survival": "fault_tolerance",
    "colour": "color",
    "fix_epochs": "finetune_epochs",
    "fix_seconds": "finetune_seconds",
    "program_seconds": "wall_seconds",
    "top1_before_fix": "top1_before_finetune",
    "top1_gain_of_fix": "top1_gain_of_finetune",
    "train_clock_ratio": "train_time_ratio",
    "train_clock_ratio_without_fix": "train_time_ratio_without_finetune",
    "program_clock_ratio": "wall_time_ratio",
}

OPTIONS = {
    "checkpoint": "model",
    "out": "output",
    "res": "train_res",
    "resolution": "train_res",
    "run_dir": "output",
    "sample": "num_images",
    "num": "num_images",
    "images": "num_images",
    "test_resolution": "test_res",
    "threads": "num_workers",
    "cold_rounds": "cold_cache_rounds",
}
"""Options that other versions call by another name, for messages."""


def renamed(values: Any) -> Any:
    """Nested mappings and lists with today's keys. Dotted keys are renamed part by part; the input is not changed."""
    if isinstance(values, dict):
        return {renamed_key(key): renamed(value) for key, value in values.items()}
    return [renamed(value) for value in values] if isinstance(values, list) else values


def renamed_key(key: Any) -> Any:
    """Today's name of a key. A dotted key is renamed part by part."""
    return ".".join(RENAMED.get(part, part) for part in key.split(".")) if isinstance(key, str) else key

"""Old names of settings and record keys, so that recipes, run folders and reports written before are still read."""

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


def renamed(values: Any) -> Any:
    """Nested mappings and lists with today's keys. Dotted keys are renamed part by part; the input is not changed."""
    if isinstance(values, dict):
        return {_renamed_key(key): renamed(value) for key, value in values.items()}
    return [renamed(value) for value in values] if isinstance(values, list) else values


def _renamed_key(key: Any) -> Any:
    return ".".join(RENAMED.get(part, part) for part in key.split(".")) if isinstance(key, str) else key

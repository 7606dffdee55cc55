"""The folder of a network in timm's format, as exports for timm and downloads from Hugging Face are.

config.json names the network, its arguments, its classes and its test transform; the weights are model.safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fixres.models.checkpoint import FORMAT, VERSION
from fixres.models.weights import WeightFile, one_line
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_MAX_BYTES, _MAX_CLASSES = 16 << 20, 1 << 20


def weights_in(path: Path) -> Path:
    """The file of weights in a folder of timm's; other paths as they are."""
    if path.is_dir():
        if not (path / CONFIG).is_file() or not (path / _WEIGHTS).is_file():
            raise InputError(f"{path} is a folder without {CONFIG} and {_WEIGHTS}; give a file of weights")
        return path / _WEIGHTS
    return path


def described(weights: WeightFile) -> WeightFile:
    """Weights with the description in the config.json beside them, as one of our checkpoints; others as they are.

    Raises:
        InputError: a description that is damaged.
    """
    path = weights.path.with_name(CONFIG)
    if weights.path.name != _WEIGHTS or weights.content or not path.is_file():
        return weights
    try:
        config = decode_json(path.read_bytes()) if path.stat().st_size < _MAX_BYTES else None
        if not isinstance(config, dict) or "architecture" not in config:
            return weights
        info = _info(config)
    except (ValueError, KeyError, TypeError, LookupError, AttributeError) as error:
        reason = one_line(error)
        raise InputError(f"{path} does not describe a network ({reason}); export it again, or add --arch") from None
    return replace(weights, content={"format": FORMAT, "version": VERSION, "info": info})


def _info(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `CheckpointInfo`, not checked."""
    transform = config["pretrained_cfg"]
    names = config.get("label_names")
    if not isinstance(names, list):
        names = [str(number) for number in range(min(config["num_classes"], _MAX_CLASSES))]
    return {
        "model": config["architecture"],
        "model_kwargs": {key: value for key, value in config.get("model_args", {}).items() if key != "num_classes"},
        "classes": names,
        **recorded_transform(transform),
    }


def recorded_transform(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `CheckpointInfo` that timm has in a `pretrained_cfg`: resolutions, crop, filter, mean, std.

    timm's own default is bicubic. Other filters than the two that we have become bicubic, which resembles them more.
    """
    test_size = config.get("test_input_size")
    return {
        "train_res": config["input_size"][-1],
        "test_res": (test_size or config["input_size"])[-1],
        "crop_pct": (config.get("test_crop_pct") if test_size else None) or config["crop_pct"],
        "interpolation": "bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
    }

"""Writes a network with its classes and its test transform for other programs: safetensors, ONNX, or timm's folder."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fixres.models.checkpoint import CheckpointInfo, checkpoint_content, with_input_size
from fixres.models.probe import set_input_size
from fixres.models.weights import METADATA_KEY, one_line
from fixres.pipelines.runtime.atomic_files import atomic_file, atomic_folder
from fixres.pipelines.spec import InputError

Format = Literal["safetensors", "onnx", "timm"]
SUFFIXES: dict[str, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "timm": ""}
"""How names of exports end; an export for timm is a folder."""

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4  # of the largest logit
_TIMM_CONFIG = "config.json"


def export(net: nn.Module, info: CheckpointInfo, path: Path, format: Format, overwrite: bool = False) -> None:
    """Writes `net`, which stays as it is, for images of side `info.test_res`; the file or folder is written atomically.

    Args:
        net: a timm network.
        info: classes and test transform, which are stored in the export; `info.data`, a place on this machine, is not.
        path: a file that ends in .safetensors or .onnx, or a folder for timm.
        format: "safetensors": weights, and all of `info` in the metadata; `open_network` reads it. "onnx": takes
            float32 (N, 3, r, r) with any N, normalized, gives logits, and was compared with `net`; `info` is in its
            metadata, each field as JSON. "timm": the folder that `timm.models.save_for_hf` writes, for
            `timm.create_model("local-dir:PATH", pretrained=True)`.
        overwrite: replace an earlier export.

    Raises:
        InputError: an existing path, a name that does not end as the format does, missing packages, or a network that
            the format cannot hold; nothing is left at `path` then.
    """
    if format not in SUFFIXES:
        raise InputError(f"format={format!r} is unknown; choose {', '.join(SUFFIXES)}")
    _check_path(path, format, overwrite)
    writers: dict[str, Callable] = {"safetensors": _write_safetensors, "onnx": _write_onnx, "timm": _write_timm}
    plain = copy.deepcopy(net).cpu().eval().to(memory_format=torch.contiguous_format)
    if format != "safetensors":
        # A graph and timm's folder are for one size, whose position embeddings need no resampling.
        set_input_size(plain, info.test_res, always=True)
    info = replace(with_input_size(info, plain), data=None)
    written = atomic_folder if format == "timm" else atomic_file
    with written(path, overwrite) as partial, torch.no_grad():
        writers[format](plain, info, partial)


def _check_path(path: Path, format: Format, overwrite: bool) -> None:
    if path.suffix != SUFFIXES[format] and SUFFIXES[format]:
        raise InputError(f"{path} must end in {SUFFIXES[format]} for format {format}; choose another name or format")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name, or give --overwrite")
    if format == "timm" and path.is_dir() and any(path.iterdir()) and not (path / _TIMM_CONFIG).is_file():
        raise InputError(f"{path} is a folder of other files, not an earlier export; choose another name")


def _write_safetensors(net: nn.Module, info: CheckpointInfo, path: Path) -> None:
    from safetensors.torch import save

    # Copies, because safetensors refuses tensors that share their memory.
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        description = json.dumps(checkpoint_content(info))
    except TypeError as error:
        raise InputError(f"model_kwargs={info.model_kwargs} cannot be stored as JSON ({error})") from error
    # Not save_file, which makes a file that only its owner can read.
    path.write_bytes(save(tensors, {"format": "pt", METADATA_KEY: description}))


def _write_onnx(net: nn.Module, info: CheckpointInfo, path: Path) -> None:
    if missing := [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"format onnx needs {', '.join(missing)}; install them: pip install 'roc-fixres[onnx]'")
    images = torch.randn(3, 3, info.test_res, info.test_res, generator=torch.Generator().manual_seed(0))
    shapes = ({0: torch.export.Dim("batch")},)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch.export, about what the comparison below checks
            program = torch.onnx.export(net, (images,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        program.model.metadata_props.update({name: json.dumps(value) for name, value in asdict(info).items()})
        program.save(str(path), external_data=False)
        _compare_onnx(net, path, images)
    except InputError:
        raise
    except Exception as error:  # any kind: of the exporter, the converter, protobuf, the runtime
        raise InputError(
            f"{_name(net)} cannot be written as ONNX ({one_line(error)}); choose another format"
        ) from error


def _compare_onnx(net: nn.Module, path: Path, images: Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for some in (images, images[:1]):
        expected = net(some)
        (logits,) = session.run(None, {"images": some.numpy()})
        if logits.shape != expected.shape:
            raise InputError(
                f"{_name(net)}: ONNX gives {logits.shape}, torch {tuple(expected.shape)}; choose another format"
            )
        error = (torch.from_numpy(logits) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
        if not error <= _TOLERANCE:
            raise InputError(
                f"{_name(net)}: logits in ONNX differ from torch's by {error:.1e} of the largest; choose another format"
            )


def _write_timm(net: nn.Module, info: CheckpointInfo, path: Path) -> None:
    from timm.models import save_for_hf

    size = (3, info.test_res, info.test_res)
    transform = {
        "input_size": size,
        "test_input_size": size,
        "crop_pct": info.crop_pct,
        "test_crop_pct": info.crop_pct,
        "interpolation": info.interpolation,
        "mean": info.mean,
        "std": info.std,
    }
    try:
        labels = {"label_names": list(info.classes)}
        save_for_hf(net, str(path), labels, safe_serialization=True, data_config=transform)
        shutil.copymode(path / _TIMM_CONFIG, path / "model.safetensors")  # which only its owner can read
    except ValueError as error:
        raise InputError(f"timm cannot store {info.model} ({one_line(error)}); choose safetensors or onnx") from error


def _name(net: nn.Module) -> str:
    return type(net).__name__

"""Files of weights and checkpoints with odd arguments, shapes, types, names, nesting and bytes."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo
from fixres.models.factory import create_model
from tests.hostile.values import NETWORKS, Rng, arguments, odd, pick

NETS = (
    ModelConfig("resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8}),
    ModelConfig("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}),
    ModelConfig("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}),
)
CLASSES = ("a", "b")
_DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int8, torch.uint8, torch.int64,
           torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32, torch.uint16]  # fmt: skip


class HostileFile(NamedTuple):
    """A file's ending and content, and how it was made, for messages."""

    suffix: str
    data: bytes
    made: str


def hostile_checkpoints(num: int, seed: int, folder: Path) -> Iterator[HostileFile]:
    """So many files; each is a sound one with one to three changes. `folder` has data that they may name."""
    for number in range(num):
        rng = np.random.default_rng([seed, number])
        content, changes = _sound(rng, folder), []
        for _ in range(int(pick(rng, [1, 1, 2, 3]))):
            change = pick(rng, _CHANGES)
            changes.append(change.__name__.strip("_"))
            content = change(content, rng)
        suffix, data = _stored(content, rng)
        if rng.integers(12) == 0:
            data, changes = _damaged(data, rng), [*changes, "damaged"]
        yield HostileFile(suffix, data, f"{number}: {', '.join(changes)}")


@cache
def _weights(number: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return create_model(NETS[number], len(CLASSES)).state_dict()


def _sound(rng: Rng, folder: Path) -> Any:
    """A checkpoint of ours, or weights of others."""
    number = int(rng.integers(len(NETS)))
    config, weights = NETS[number], dict(_weights(number))
    data = {"path": str(folder / pick(rng, ["data", "nothing", ""])), "work_dir": str(folder / "work"), "seed": 0}
    info = CheckpointInfo(config.name, dict(config.kwargs), CLASSES, 32, 32, 0.875, data=data)
    own = {"format": "fixres-checkpoint", "version": 1, "info": asdict(info), "state_dict": weights}
    return pick(rng, [own, own, own, weights, {"model": weights, "arch": config.name}])


def _state(content: Any) -> dict[Any, Any]:
    """The weights in a content, wherever they are."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            return content[key]
    return content if isinstance(content, dict) else {}


def _arguments(content: Any, rng: Rng) -> Any:
    info = content.get("info") if isinstance(content, dict) else None
    if isinstance(info, dict):
        old = info.get("model_kwargs")
        info["model_kwargs"] = (dict(old) if isinstance(old, dict) and rng.integers(2) else {}) | arguments(rng)
    return content


def _description(content: Any, rng: Rng) -> Any:
    if not isinstance(content, dict):
        return content
    info = content.get("info")
    target = info if isinstance(info, dict) and rng.integers(5) else content
    target[pick(rng, [*target, "x"])] = pick(rng, [odd(rng), torch.zeros(3), (1, 2), {1, 2}, b"x"])
    return content


def _network(content: Any, rng: Rng) -> Any:
    if isinstance(content, dict):
        info = content.get("info")
        target, key = (info, "model") if isinstance(info, dict) else (content, "arch")
        target[key] = pick(rng, NETWORKS)
    return content


def _tensor(content: Any, rng: Rng) -> Any:
    """One weight of another shape, type, layout or memory."""
    state = _state(content)
    named = [name for name, value in state.items() if isinstance(value, Tensor)]
    if not named:
        return content
    name = pick(rng, named)
    value, kind = state[name], int(rng.integers(10))
    if kind == 0:
        shape = pick(rng, [(0,), (), (1,), (7, 3), (2,) * 20, (1, 1, 1, 1), tuple(value.shape[:-1])])
        value = torch.zeros(shape, dtype=value.dtype)
    elif kind == 1:
        value = torch.zeros(1).expand(int(pick(rng, [10**6, 5 * 10**9])), 4)
    elif kind == 2:
        value = torch.zeros(value.shape).to(pick(rng, _DTYPES))
    elif kind == 3 and value.is_floating_point():
        value = value.to_sparse()
    elif kind == 4:
        value = value.to("meta")
    elif kind == 5 and value.ndim:
        value = torch.zeros(8, *value.shape)[3].flip(0).t() if value.ndim == 2 else value[::2]
    elif kind == 6:
        with warnings.catch_warnings(action="ignore"):
            value = torch.quantize_per_tensor(torch.zeros(value.shape), 0.1, 0, torch.qint8)
    elif kind == 7:
        value = (
            torch.full_like(value, pick(rng, [float("nan"), float("inf"), -1.0]))
            if value.dtype.is_floating_point
            else value
        )
    elif kind == 8:
        value = pick(rng, [odd(rng), torch.nn.Parameter(torch.zeros(2)), [value], {"a": value}])
    else:
        value = value.double() * 1e300
    state[name] = value
    return content


def _names(content: Any, rng: Rng) -> Any:
    """Other names of the weights."""
    state = _state(content)
    prefix = pick(rng, ["module.", "model.", "a.b.c.d.e.", "_orig_mod.", "\x1b[2J.", "x" * 5000 + ".", ".", ""])
    kind = int(rng.integers(5))
    found = dict(state)
    state.clear()
    for number, (name, value) in enumerate(found.items()):
        if kind == 0 and number % 2:
            state[name] = value
        elif kind == 1 and number == 3:
            state[pick(rng, [7, None, (1, 2), True, 1.5, "", "n_averaged"])] = value
        elif kind == 2 and number == 4:
            continue
        else:
            state[f"{prefix}{name}" if kind != 2 else name] = value
        if kind == 3:
            state[f"teacher.{name}"] = value
    if kind == 4:
        state.update({f"{prefix}{number}": torch.zeros(1) for number in range(3000)})
    return content


def _nesting(content: Any, rng: Rng) -> Any:
    kind = int(rng.integers(6))
    if kind == 0:
        return pick(rng, [[content], (content,), {"a": content}, None, 3, "x", [], {}, {1: 2}])
    if kind == 1:
        return {pick(rng, ["state", "model_state_dict", "module", "net", "state_dict_ema", "x"]): content}
    if not isinstance(content, dict):
        return content
    if kind == 2:
        content["again"] = content
    elif kind == 3:
        content["deep"] = odd(rng)
    elif kind == 4:
        content[pick(rng, ["state_dict_ema", "model_ema", "state"])] = pick(rng, [{}, {"a": 1}, odd(rng), {"model": 3}])
    else:
        content["others"] = {"rng": np.zeros(3), "float": np.float64(1), "call": _Call()}
    return content


def _benign(content: Any, rng: Rng) -> Any:
    """What other programs write, and what should open."""
    state, kind = _state(content), int(rng.integers(4))
    if kind == 0:
        dtype = pick(rng, [torch.float16, torch.bfloat16, torch.float64])
        state.update({name: value.to(dtype) for name, value in state.items()
                      if isinstance(value, Tensor) and value.is_floating_point()})  # fmt: skip
    elif kind == 1:
        return {"state": {"model": state}, "rng": [{"numpy": np.zeros(3)}]}
    elif kind == 2 and isinstance(content, dict):
        content.update(epoch=3, optimizer={"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]})
    return content


class _Call:
    """Loading it would end the process with code 99."""

    def __reduce__(self) -> tuple:
        return exec, ("import os; os._exit(99)",)


_CHANGES = [_arguments, _arguments, _arguments, _description, _network, _tensor, _tensor, _names, _nesting, _benign,
            _benign]  # fmt: skip


def _stored(content: Any, rng: Rng) -> tuple[str, bytes]:
    """The content as a file; what a format cannot hold is left out."""
    kind = int(rng.integers(10))
    if kind < 2 and isinstance(content, dict):
        tensors = {name: value.clone().contiguous() for name, value in _state(content).items()
                   if isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
                   and value.device.type == "cpu" and not value.is_quantized and value.numel() < 10**6}  # fmt: skip
        others = {name: value for name, value in content.items() if isinstance(name, str) and name != "state_dict"}
        text = _json(others if rng.integers(6) else odd(rng))
        try:
            return ".safetensors", safetensors.torch.save(tensors, {"fixres": text})
        except Exception:  # types that the format lacks
            return ".safetensors", text.encode("utf-8", "replace")
    file = io.BytesIO()
    try:
        torch.save(content, file, _use_new_zipfile_serialization=kind > 2)
    except Exception:  # torch cannot write some of it
        return ".pt", pickle.dumps(type(content).__name__)
    return pick(rng, [".pt", ".pth", ".ckpt", ".bin"]), file.getvalue()


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, skipkeys=True)
    except (ValueError, RecursionError):
        return "[" * 50_000


def _damaged(data: bytes, rng: Rng) -> bytes:
    """Some bytes changed, or the end cut away."""
    new = bytearray(data)
    if rng.integers(2):
        return bytes(new[: int(rng.integers(len(new) + 1))])
    for place in rng.integers(len(new), size=3) if new else ():
        new[int(place)] = int(rng.integers(256))
    return bytes(new)

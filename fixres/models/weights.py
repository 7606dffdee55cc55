"""Reads weights from files of any origin: timm's, torchvision's, FixRes', safetensors; always with weights_only=True.

The result is tensors by name; `state_dicts` fits them to a network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fixres.pipelines.spec import InputError

# Keys of the weights in a checkpoint, averaged weights first: timm reports the accuracy of those.
_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
METADATA_KEY = "fixres"
"""Of what our checkpoints hold besides the weights, as JSON, in the metadata of a .safetensors file."""
# Prefixes of torch.compile and DistributedDataParallel.
_PREFIXES = re.compile(r"^(_orig_mod\.)?(module\.)?(_orig_mod\.)?")
# torch.save does not compress, so an archive cannot hold more than its own size; one that does would fill memory.
_MAX_INFLATION = 1.05
_ALIGNMENT = 1 << 20
_CHECKSUM = re.compile(r"([0-9a-f]{64})|.*-([0-9a-f]{8,64})\.\w+")
_SMALL_NETWORK = 1 << 26  # values


@dataclass(frozen=True)
class WeightFile:
    """Tensors by name, and the file's other content.

    Attributes:
        state_dict: tensors on the CPU, without the wrappers' prefixes.
        key: their key in the file, "" if the file has no other content.
        arch: timm's name of the network, if the file has it.
        content: everything else in the file, without the weights.
    """

    path: Path
    state_dict: dict[str, Tensor]
    key: str
    arch: str | None
    content: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """A few words for messages."""
        return f"weights under {self.key!r}" if self.key else "a bare state dict"

    @property
    def max_network(self) -> int:
        """The most values that a network for these weights can have; more than they have, so that others are named."""
        return 2 * sum(value.numel() for value in self.state_dict.values()) + _SMALL_NETWORK


def read_weights(path: Path) -> WeightFile:
    """Reads a .safetensors file, or one of torch.save with `weights_only=True`.

    Raises:
        InputError: no such file, not weights, damaged, or with content that loading would execute.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a file of weights or a timm model name")
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, not weights by name; save net.state_dict() there")
    key = next((key for key in _KEYS if isinstance(loaded.get(key), Mapping)), "")
    tensors = loaded[key] if key else loaded
    state_dict = {_PREFIXES.sub("", name): value for name, value in tensors.items() if isinstance(name, str)}
    if not state_dict or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise InputError(
            f"{path}: no weights in it; expected tensors by name, at the top or under {', '.join(map(repr, _KEYS))}"
        )
    if len(state_dict) < len(tensors):
        raise InputError(f"{path}: two weights have the same name once 'module.' is taken off; save it again")
    rest = {name: value for name, value in loaded.items() if name not in _KEYS} if key else {}
    return WeightFile(path, state_dict, key, _arch(rest), rest)


def _safetensors(path: Path) -> dict[str, Any]:
    """Tensors by name; in one of our checkpoints below "state_dict", beside its other content."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            description = (file.metadata() or {}).get(METADATA_KEY)
        content = None if description is None else json.loads(description)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a safetensors file, or damaged ({one_line(error)})") from error
    return {**content, "state_dict": tensors} if isinstance(content, dict) else tensors


def _torch_file(path: Path) -> Any:
    refuse_bombs(path)
    try:
        # timm's training script keeps its options beside the weights, as a Namespace of plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds here: pickle, zip, key, end of file, runtime
        if isinstance(error, pickle.UnpicklingError) and (unsafe := _unsafe_globals(path)):
            raise InputError(
                f"{path}: wants to execute {unsafe} while loading, which is never done with weights; ask its "
                "author for a .safetensors file, or one with net.state_dict() only"
            ) from error
        raise InputError(f"{path}: not weights, damaged, or with unsafe content; copy it again") from error


def refuse_bombs(path: Path) -> None:
    """Raises InputError for an archive with compressed members, which can be a thousand times larger in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch's older format, or something that torch will refuse
    if unpacked > _MAX_INFLATION * path.stat().st_size + _ALIGNMENT:
        raise InputError(f"{path}: unpacks to {unpacked >> 20} MiB, more than its size; not a file of torch.save")


def with_its_checksum(path: Path, needed: bool = False) -> Path:
    """`path`, a file in a cache of downloads, if its content has the SHA-256 that is in its name or its link's target.

    Args:
        path: in torch's cache, such as resnet50-19c8e357.pth, or in that of Hugging Face, a link to blobs/SHA256.
        needed: refuse a name without a checksum: any program may have written such a file.

    Raises:
        InputError: another checksum, or none where it is needed.
    """
    found = _CHECKSUM.fullmatch(path.resolve().name) or _CHECKSUM.fullmatch(path.name)
    if found is None:
        if needed:
            raise InputError(
                f"{path}: nothing shows that this file in the cache is what its name says; if you know its origin, "
                "give it as a file, with --arch"
            )
        return path
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found[1] or found[2]):
        raise InputError(f"{path}: its content has another checksum than its name; remove it and download it again")
    return path


def _unsafe_globals(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the older format, which torch cannot look into without loading
        return ""
    return ", ".join(sorted(name for name in names if name != "argparse.Namespace")[:3])


def _arch(content: Mapping[str, Any]) -> str | None:
    arch = content.get("arch", getattr(content.get("args"), "model", None))
    return arch if isinstance(arch, str) and arch else None


def one_line(error: Exception) -> str:
    """The first 160 characters of an error's text, on one line."""
    return " ".join(str(error).split())[:160]

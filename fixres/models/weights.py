"""Reads weights from files of any origin: timm's, torchvision's, FixRes', Lightning's, Composer's, safetensors.

torch.load always gets weights_only=True. The result is tensors by name; `state_dicts` fits them to a network.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

# Keys of the weights in a checkpoint, averaged weights first: timm reports the accuracy of those.
_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module", "net", "weights")
_OUTER_KEYS = ("state",)  # Composer's, around "model"
METADATA_KEY = "fixres"
"""Of what our checkpoints hold besides the weights, as JSON, in the metadata of a .safetensors file."""
# Parts of names that DistributedDataParallel, AveragedModel (at the front), torch.compile, FSDP and activation
# checkpointing (anywhere) add.
_WRAPPERS = re.compile(r"^(module\.)+|(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_COUNTERS = ("n_averaged",)  # of torch.optim.swa_utils.AveragedModel, beside the weights
# Packages whose objects checkpoints hold beside the weights: metrics, settings, states of random generators. A
# placeholder takes their place, nothing of them is imported or called.
_IGNORED = re.compile(r"(numpy|datetime|pathlib|torchmetrics|composer|pytorch_lightning|lightning|lightning_fabric)\.")
_DTYPES = {torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.bool,
           torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}  # fmt: skip
_MAX_SHARED = 2  # times the size of the file, for networks that use weights twice
# torch.save does not compress, so an archive cannot hold more than its own size; one that does would fill memory.
_MAX_INFLATION = 1.05
_ALIGNMENT = 1 << 20
_CHECKSUM = re.compile(r"([0-9a-f]{64})|.*-([0-9a-f]{8,64})\.\w+")
_SMALL_NETWORK = 1 << 26  # values
_IMAGE = "an image, not a network; give a file of weights, and to fixres predict the weights before the images"
_OTHER_FILES = dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"), _IMAGE) | {
    ".onnx": "an ONNX file, which other programs run; give the checkpoint that it was made from, or a .safetensors file"
}


@dataclass(frozen=True)
class WeightFile:
    """Tensors by name, and the file's other content.

    Attributes:
        state_dict: tensors on the CPU, without the wrappers' parts of names.
        key: their key in the file, "" if the file has no other content.
        arch: timm's name of the network, if the file has it.
        content: everything else in the file, without the weights.
        changes: what was left out, in words; "" if nothing.
    """

    path: Path
    state_dict: dict[str, Tensor]
    key: str
    arch: str | None
    content: Mapping[str, Any]
    changes: str = ""

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
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give a file of weights or a timm model name")
    if (what := _OTHER_FILES.get(path.suffix.lower())) is not None:
        raise InputError(f"{path}: {what}")
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, not weights by name; save net.state_dict() there")
    outer = next((key for key in _OUTER_KEYS if _key_in(loaded.get(key))), "")
    inner = loaded[outer] if outer else loaded
    key = _key_in(inner)
    tensors = inner[key] if key else inner
    state_dict, changes = _unwrapped(path, tensors)
    if not state_dict or not all(isinstance(value, Tensor) for value in state_dict.values()):
        keys = ", ".join(map(repr, _KEYS))
        raise InputError(f"{path}: no weights in it; expected tensors by name, at the top or under {keys}")
    _check_tensors(path, state_dict)
    rest = {name: value for name, value in inner.items() if name not in _KEYS} if key else {}
    return WeightFile(path, state_dict, f"{outer}.{key}" if outer else key, _arch(rest), rest, changes)


def _key_in(content: Any) -> str:
    """The key of the weights; empty if there is none."""
    return next((key for key in _KEYS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), "")


def _unwrapped(path: Path, tensors: Mapping[Any, Any]) -> tuple[dict[str, Any], str]:
    """Names without the parts that wrappers add, and what was taken away."""
    removed: set[str] = set()
    state_dict: dict[str, Any] = {}
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: a weight without a name ({type(name).__name__}); save net.state_dict() there")
        if name in _COUNTERS and any(str(other).startswith("module.") for other in tensors):
            removed.add(name)
            continue
        removed.update(found[0] for found in _WRAPPERS.finditer(name))
        bare = _WRAPPERS.sub("", name)
        if bare in state_dict:
            raise InputError(f"{path}: two weights have the same name once 'module.' is taken off; save it again")
        state_dict[bare] = value
    return state_dict, f"without {', '.join(sorted(removed))} in its names" if removed else ""


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses tensors without values of their own, and types that are not those of plain weights."""
    claimed = 0
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
            raise InputError(f"{path}: sparse or quantized weights, or without values ({name[:80]}); give plain ones")
        if value.dtype not in _DTYPES:
            raise InputError(f"{path}: {name[:80]} is {value.dtype}; give weights in float32 or float16")
        claimed += value.numel() * value.element_size()
    size = path.stat().st_size
    if claimed > _MAX_SHARED * size + _ALIGNMENT:  # a single value can be given any shape
        raise InputError(
            f"{path}: its weights would take {claimed:,} bytes, the file has {size:,}; not a file to trust"
        )


def _safetensors(path: Path) -> dict[str, Any]:
    """Tensors by name; in one of our checkpoints below "state_dict", beside its other content."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            description = (file.metadata() or {}).get(METADATA_KEY)
        content = None if description is None else decode_json(description)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a safetensors file, or damaged ({one_line(error)})") from error
    return {**content, "state_dict": tensors} if isinstance(content, dict) else tensors


def _torch_file(path: Path) -> Any:
    refuse_bombs(path)
    _check_sums(path)
    unsafe = _unsafe_globals(path)
    ignored = [name for name in unsafe if _IGNORED.match(name)]
    # timm's training script keeps its options beside the weights, as a Namespace of plain values.
    safe = [argparse.Namespace, *((_Placeholder, name) for name in ignored)]
    try:
        # Warnings about how torch wrote a file tell its reader nothing.
        with torch.serialization.safe_globals(safe), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds here: pickle, zip, key, end of file, runtime
        if isinstance(error, pickle.UnpicklingError) and unsafe:
            first = sorted(set(unsafe) - set(ignored)) or sorted(unsafe)
            raise InputError(
                f"{path}: wants to execute {', '.join(first[:3])} while loading, which is never done with weights; ask "
                "its author for a .safetensors file, or one with net.state_dict() only"
            ) from error
        raise InputError(f"{path}: not weights, damaged, or with unsafe content; copy it again") from error


class _Placeholder:
    """Takes the place of an object in a file, and ignores everything that the file says about it."""

    def __new__(cls, *_: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def refuse_bombs(path: Path) -> None:
    """Raises InputError for an archive with compressed members, which can be a thousand times larger in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch's older format, or something that torch will refuse
    if unpacked > _MAX_INFLATION * path.stat().st_size + _ALIGNMENT:
        raise InputError(f"{path}: unpacks to {unpacked >> 20} MiB, more than its size; not a file of torch.save")


def _check_sums(path: Path) -> None:
    """Raises InputError for an archive of which a part has not its checksum; torch.load does not compare them.

    A checksum of 0 is none: `torch.serialization.set_crc32_options(False)` writes that.
    """
    if not zipfile.is_zipfile(path):
        return  # torch's older format
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    while member.CRC and file.read(_ALIGNMENT):
                        pass
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); copy it again") from error


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


def _unsafe_globals(path: Path) -> list[str]:
    """Names of what the file wants to call, without what torch allows."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the older format, which torch cannot look into without loading
        return []
    return [name for name in names if name != "argparse.Namespace"]


def _arch(content: Mapping[str, Any]) -> str | None:
    arch = content.get("arch", getattr(content.get("args"), "model", None))
    return arch if isinstance(arch, str) and arch else None


def one_line(error: Exception) -> str:
    """The first 160 characters of an error's text, on one line; its type if it has no text."""
    return " ".join(str(error).split())[:160] or type(error).__name__

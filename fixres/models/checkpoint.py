"""Checkpoints: weights with the settings of their training and their test transform."""

from __future__ import annotations

import hashlib
import reprlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from fixres.config.recipe import ModelConfig
from fixres.models.factory import create_model
from fixres.models.probe import size_arguments
from fixres.models.state_dicts import check_values
from fixres.models.weights import WeightFile, one_line, read_weights
from fixres.pipelines.runtime.atomic_files import atomic_file, open_own
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD, EvalCrop, InputError, check_resolution

FORMAT = "fixres-checkpoint"
VERSION = 1
TASK_FORMATS = {"detect": "fixres-detect", "segment": "fixres-segment"}
"""The formats of the networks that other commands train; `TASK_OPENERS` open them."""
TASK_OPENERS = {"detect": "fixres.detector", "segment": "fixres.segmenter"}
_MIN_STD = 1e-4  # that of pixels in [0, 1]
_RENAMED = {"fixed": "finetuned"}  # keys that older checkpoints have


@dataclass(frozen=True)
class CheckpointInfo:
    """Everything but the weights.

    Attributes:
        model: timm name of the network.
        model_kwargs: further arguments of timm.create_model.
        classes: class names in label order.
        train_res: last training resolution in pixels.
        test_res: test resolution in pixels.
        crop_pct: side of the center crop over the resized short side.
        interpolation: filter of the resize, "bilinear" or "bicubic", always antialiased.
        mean: channel means in [0, 1], RGB.
        std: channel deviations in [0, 1], RGB.
        finetuned: whether FixRes fine-tuning for `test_res` was done.
        seed: the run's seed.
        data: the fields path, work_dir and seed of `DataConfig` for the data it was trained on; None if unknown.
    """

    model: str
    model_kwargs: dict[str, Any]
    classes: tuple[str, ...]
    train_res: int
    test_res: int
    crop_pct: float
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    finetuned: bool = False
    seed: int = 0
    data: dict[str, Any] | None = None

    @property
    def eval_crop(self) -> EvalCrop:
        """The test crop."""
        return EvalCrop(self.crop_pct, interpolation=self.interpolation)


def save_checkpoint(path: Path, net: nn.Module, info: CheckpointInfo) -> None:
    """Writes weights and info; the file is written atomically.

    The weights have the key "state_dict", so timm.create_model(..., checkpoint_path=path) loads them.

    Raises:
        OSError: the disk is full or fails.
    """
    content = checkpoint_content(with_input_size(info, net)) | {"state_dict": net.state_dict()}
    with atomic_file(path, overwrite=True) as temporary:
        save_hashed(content, temporary)


def with_input_size(info: CheckpointInfo, net: nn.Module) -> CheckpointInfo:
    """The description with the size for which a network's position embeddings and windows were made."""
    return replace(info, model_kwargs={**info.model_kwargs, **size_arguments(net)})


def checkpoint_content(info: CheckpointInfo) -> dict[str, Any]:
    """What a checkpoint holds besides the weights."""
    return {"format": FORMAT, "version": VERSION, "info": asdict(info)}


def load_checkpoint(path: Path) -> tuple[nn.Module, CheckpointInfo]:
    """The network with its weights, on the CPU, and its description.

    Raises:
        InputError: no such file, not one of our checkpoints, or weights that do not fit the named network.
    """
    return network_from(read_weights(path))


def stored_info(path: Path) -> CheckpointInfo | None:
    """The description in a checkpoint of ours; None for other files. See `refuse_other_tasks`."""
    weights = read_weights(path)
    refuse_other_tasks(weights)
    return _info(path, weights.content.get("info")) if is_checkpoint(weights) else None


def is_checkpoint(weights: WeightFile) -> bool:
    """Whether the file is one of our checkpoints, of any version."""
    found = weights.content.get("format")  # a comparison of an array would be an array
    return isinstance(found, str) and found == FORMAT


def task_of(weights: WeightFile) -> str | None:
    """The command that trained the network, "detect" or "segment"; None for all other files."""
    return next((task for task, name in TASK_FORMATS.items() if name == str(weights.content.get("format"))), None)


def refuse_other_tasks(weights: WeightFile) -> None:
    """Raises InputError for a network that is not a classifier, with what opens it."""
    if task := task_of(weights):
        raise InputError(
            f"{weights.path}: made by `fixres {task}`, not a classifier; open it with {TASK_OPENERS[task]} in Python, "
            "or give the classifier that was its backbone"
        )


def network_classes(weights: WeightFile) -> tuple[str, ...]:
    """The class names in one of our checkpoints, in label order."""
    return _info(weights.path, weights.content.get("info")).classes


def network_from(weights: WeightFile) -> tuple[nn.Module, CheckpointInfo]:
    """The network and description of one of our checkpoints; see `load_checkpoint`."""
    path, content = weights.path, weights.content
    if not is_checkpoint(weights):
        raise InputError(f"{path}: not a checkpoint of this project; expected the key format={FORMAT!r}")
    if type(content.get("version")) is not int or content["version"] != VERSION:
        raise InputError(
            f"{path}: checkpoint version {reprlib.repr(content.get('version'))}, this program reads version {VERSION}"
        )
    info = _info(path, content.get("info"))
    try:
        net = create_model(ModelConfig(info.model, info.model_kwargs), len(info.classes), weights.max_network)
    except InputError as error:
        raise InputError(f"{path}: its network is refused: {error}") from error
    try:
        net.load_state_dict(weights.state_dict)
    except (RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its weights do not fit the model {info.model} ({one_line(error)})") from error
    check_values(path, net, weights.state_dict)
    return net, info


def _info(path: Path, values: Any) -> CheckpointInfo:
    try:
        if not isinstance(values, dict):
            raise TypeError("it is missing")
        values = {_RENAMED.get(key, key): value for key, value in values.items()}
        info = CheckpointInfo(**values | {key: tuple(values[key]) for key in ("classes", "mean", "std")})
        _check(info)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its description is incomplete or of another version ({one_line(error)})") from error
    return info


def _check(info: CheckpointInfo) -> None:
    """Raises TypeError or InputError for a value that is not of the kind or in the range of `CheckpointInfo`."""
    texts = (info.model, info.interpolation, *info.classes)
    numbers = (info.crop_pct, *info.mean, *info.std)
    if not (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int for number in (info.train_res, info.test_res, info.seed))
        and all(type(number) in (int, float) for number in numbers)
        and isinstance(info.finetuned, bool)
        and isinstance(info.model_kwargs, dict)
        and (info.data is None or _is_data(info.data))
    ):
        raise TypeError("a value of the wrong kind")
    check_resolution(info.train_res)
    check_resolution(info.test_res)
    assert info.eval_crop  # it checks its values
    if not (
        (info.classes and len(info.mean) == len(info.std) == 3 and 0 <= info.seed < 2**63)
        and all(0 <= mean <= 1 for mean in info.mean)
        and all(_MIN_STD <= std <= 1 / _MIN_STD for std in info.std)
    ):
        raise TypeError("a value out of range")


def _is_data(data: Any) -> bool:
    kinds = {"path": str, "work_dir": str, "seed": int}
    fits = isinstance(data, dict) and {key: type(value) for key, value in data.items()} == kinds
    return fits and 0 <= data["seed"] < 2**63


def save_hashed(content: Any, path: Path) -> str:
    """Writes `content` to `path` with torch.save and computes the checksum meanwhile, without a copy in memory.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        OSError: the disk is full or fails. torch.save alone turns that into a RuntimeError about positions.
    """
    with open(path, "wb", opener=open_own) as file:
        writer = _Hashing(file)
        try:
            torch.save(content, writer)
        except Exception:
            if writer.error is not None:
                raise writer.error from None
            raise
    return writer.hash.hexdigest()


class _Hashing:
    """A file that torch.save writes to sequentially; keeps the error that torch hides."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()

"""A network's pooled features and probabilities for every image of a split, in the data set's order, as .npy files.

A killed extraction goes on where it stood: a journal beside the unfinished folder says how many images are safe on
disk, and whose they are. The finished files are byte for byte those of an extraction without interruption.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fixres.evaluation.accuracy import forward
from fixres.evaluation.activations import inputs_of
from fixres.evaluation.predictions import EMBEDDINGS, LABELS, NAMES, RECORD, SOFTMAX
from fixres.models.factory import Normalize
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.models.pretrained import NetworkChoice
from fixres.models.probe import check_takes
from pipelines.runtime.atomic_files import check_target, resumable, write_json
from pipelines.spec import DataConfig, EvalCrop, InputError, Loader, OpenLoader, check_resolution

VERSION = 1
_SECONDS_BETWEEN_NOTES = 2.0  # about so much work is lost when an extraction is killed


@dataclass(frozen=True)
class ExtractJob(NetworkChoice):
    """Writes embeddings, softmax and labels of all images of a split."""

    output: Path = Path("features")
    """Folder to make."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    images: Path | None = None
    """Test images alone, see tools/evaluate.py; instead of data.path."""
    split: Literal["train", "val"] = "val"
    """Which images of data.path; training images are cropped as in testing, too."""
    test_res: int | None = None
    """Test resolution in pixels; the weights' own if null."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of embeddings and softmax."""
    batch_size: int = 64
    """Images per step."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: str = "auto"
    """Autocast type: auto, fp32, bf16 or fp16."""
    overwrite: bool = False
    """Replace the output folder if it exists."""
    restart: bool = False
    """Forget an unfinished extraction instead of continuing it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_res is not None:
            check_resolution(self.test_res)
        if self.images is not None and self.split != "val":
            raise InputError("images are a test split of their own; omit --split")
        check_target(self.output, folder=True)


@dataclass(frozen=True)
class Extraction:
    """What an extraction made.

    Attributes:
        folder: where the files are.
        num_images: lines in each of them.
        num_kept: images that an earlier, interrupted run had done.
        seconds: of this run.
    """

    folder: Path
    num_images: int
    num_kept: int
    seconds: float


def extract(
    job: ExtractJob,
    open_loader: OpenLoader,
    classes: tuple[str, ...],
    names: list[str] | None = None,
    stored: Mapping[str, str | float] | None = None,
) -> Extraction:
    """Runs the job.

    Args:
        job: what to extract.
        open_loader: the data.
        classes: its class names in label order.
        names: its images' names in order, if they are known; they are kept beside the arrays.
        stored: by what is known that an unfinished extraction goes on over the same pixels: the "engine" that makes
            them, the "fingerprint" of the stored images.
    """
    device = choose_device(job.device)
    opened = job.open(classes)
    precision = choose_precision(job.precision, device)
    info, net, normalize = opened.info, opened.net.to(device), opened.normalize.to(device)
    resolution = job.test_res or info.test_res
    check_takes(net, resolution)
    loader = open_loader(job.split, crop=EvalCrop(info.crop_pct), resolution=resolution, batch_size=job.batch_size)
    record = {
        "version": VERSION,
        "model": job.weights,
        "arch": info.model,
        "model_kwargs": info.model_kwargs,
        "weights": weights_digest(net),
        "resolution": resolution,
        "crop_pct": info.crop_pct,
        "mean": list(info.mean),
        "std": list(info.std),
        "data": str(job.images or job.data.path),
        **(stored or {}),
        "split": job.split,
        "num_images": loader.num_samples,
        "classes": list(classes),
        "dtype": job.dtype,
        "batch_size": job.batch_size,
        "precision": precision.name,
        "device": device.type,
        "torch": torch.__version__,
    }
    start = time.perf_counter()
    try:
        with resumable(job.output, job.overwrite, folder=True) as unfinished:
            journal = _Journal(unfinished.journal, record, job.restart)
            kept = _run(net, normalize, loader, precision, unfinished.data, journal, job.dtype, len(classes))
            write_json(unfinished.data / RECORD, record)
            if names is not None:
                write_json(unfinished.data / NAMES, names)
    finally:
        loader.close()
    return Extraction(job.output, loader.num_samples, kept, time.perf_counter() - start)


def weights_digest(net: nn.Module) -> str:
    """SHA-256 of all weights, so that no extraction goes on with those of another network."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class _Journal:
    """How many images are safe on disk: a line with the record, then a line for each note."""

    def __init__(self, path: Path, record: dict[str, Any], restart: bool) -> None:
        self.path, self._header = path, json.dumps(record, sort_keys=True)
        self.num_done = 0 if restart else self._read()
        if self.num_done == 0:
            path.write_text(self._header + "\n")

    def _read(self) -> int:
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        if not lines:
            return 0
        if lines[0] != self._header:
            raise InputError(f"{self.path} {_refusal(lines[0], self._header)}, or start afresh with --restart true")
        return int(lines[-1]) if len(lines) > 1 and lines[-1].isdecimal() else 0

    def note(self, num_done: int) -> None:
        """Notes that the first `num_done` images are on disk."""
        with open(self.path, "a") as file:
            file.write(f"{num_done}\n")
            file.flush()
            os.fsync(file.fileno())


def _refusal(found: str, wanted: str) -> str:
    """What differs between two records, and what would mend it."""
    try:
        old, new = json.loads(found), json.loads(wanted)
        differing = [key for key in new if old.get(key) != new[key]]
        which = "fingerprint" if "fingerprint" in differing else differing[0]
    except (ValueError, AttributeError, IndexError):
        return "belongs to an extraction with other settings; finish that one"
    values = f"{which}: {str(old.get(which))[:60]} instead of {str(new[which])[:60]}"
    if which == "fingerprint":
        return f"belongs to an extraction of other images ({values}); bring those back"
    return f"belongs to an extraction with other settings ({values}); finish that one"


def _run(
    net: nn.Module,
    normalize: Normalize,
    loader: Loader,
    precision: Precision,
    folder: Path,
    journal: _Journal,
    dtype: str,
    num_classes: int,
) -> int:
    """Fills the arrays from where the journal ends; returns how many images were there before."""
    num, kept = loader.num_samples, journal.num_done
    loader.load_state_dict(loader.state_dict() | {"epoch": 0, "position": kept})
    arrays: dict[str, np.ndarray] = {}
    net.eval()
    done, noted = kept, time.perf_counter()
    with torch.inference_mode(), _classifier_input(net) as caught, _bar(num, kept) as bar:
        for batch in loader if kept < num else ():
            _check_order(batch.indices, done)
            logits = forward(net, normalize, batch.images, precision)
            rows = {EMBEDDINGS: _pooled(caught), SOFTMAX: logits.float().softmax(1), LABELS: batch.labels}
            arrays = arrays or _open_arrays(folder, rows, num, num_classes, dtype, fresh=kept == 0)
            for name, values in rows.items():
                arrays[name][done : done + len(values)] = _storable(name, values, arrays[name].dtype)
            done += len(batch.labels)
            bar.update(len(batch.labels))
            if time.perf_counter() - noted > _SECONDS_BETWEEN_NOTES:
                _flush(arrays, journal, done)
                noted = time.perf_counter()
    if done != num:
        raise InputError(f"the loader gave {done} images of {num}; look for damaged ones with tools/inspect_dataset.py")
    _flush(arrays, journal, done)
    return kept


def _storable(name: str, values: Tensor, kind: np.dtype) -> np.ndarray:
    converted = values.cpu().numpy().astype(kind)
    if not np.isfinite(converted).all():
        raise InputError(f"{name}: values that are not finite as {kind}; use --dtype float32, or another precision")
    return converted


def _open_arrays(
    folder: Path, rows: dict[str, Tensor], num: int, num_classes: int, dtype: str, fresh: bool
) -> dict[str, np.ndarray]:
    """Memory-mapped files for all images, made, or found from before."""
    if rows[SOFTMAX].shape[1] != num_classes:
        raise InputError(f"wrong classifier size, {rows[SOFTMAX].shape[1]} classes for the data's {num_classes}")
    arrays = {}
    for name, values in rows.items():
        shape, kind = (num, *values.shape[1:]), np.dtype(np.int64 if name == LABELS else dtype)
        if fresh:
            arrays[name] = np.lib.format.open_memmap(folder / name, "w+", kind, shape)
            continue
        try:
            arrays[name] = np.lib.format.open_memmap(folder / name, "r+")
        except (OSError, ValueError, EOFError):
            arrays[name] = np.empty(0)
        if arrays[name].shape != shape or arrays[name].dtype != kind:
            raise InputError(f"{folder / name} is not what was being written; start afresh with --restart true")
    return arrays


def _flush(arrays: dict[str, np.ndarray], journal: _Journal, done: int) -> None:
    for array in arrays.values():
        array.flush()
    journal.note(done)


@contextmanager
def _classifier_input(net: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what the classifier is given inside the block."""
    classifier = net.get_classifier()
    if not isinstance(classifier, nn.Linear | nn.Conv2d):
        raise InputError(f"{type(net).__name__} has no single linear classifier whose input could be extracted")
    with inputs_of(classifier) as caught:
        yield caught


def _pooled(caught: list[Tensor]) -> Tensor:
    """float32 (B, C): the one input that was caught."""
    features = caught.pop()
    if caught or features.ndim < 2 or features[0].numel() != features.shape[1]:
        raise InputError(f"the classifier's input has shape {tuple(features.shape)}: it is not pooled before")
    return features.flatten(1).float()


def _check_order(indices: Tensor, done: int) -> None:
    expected = torch.arange(done, done + len(indices))
    if torch.equal(indices.cpu(), expected):
        return
    if bool((indices < 0).any()):
        raise InputError("this engine does not tell which image is which; use --data.engine roc or torch")
    raise InputError("images were replaced or reordered; extraction needs each one: use --data.on_bad stop")


def _bar(num: int, done: int) -> tqdm:
    return tqdm(total=num, initial=done, desc="extract", unit="img", leave=False, mininterval=0.5, disable=None)

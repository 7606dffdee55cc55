"""A network's pooled features and probabilities for every image of a split, in the data set's order, as .npy files.

A killed extraction can be resumed: a journal beside the unfinished folder holds the settings and the number of images
that are on disk. The finished files are byte for byte equal to those of an extraction without interruption.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres.config.jobs import ExtractJob
from fixres.evaluation.activations import inputs_of, pooled_input
from fixres.evaluation.predictions import EMBEDDINGS, LABELS, NAMES, RECORD, SOFTMAX
from fixres.models.checkpoint import CheckpointInfo
from fixres.models.predictor import Predictor
from fixres.models.pretrained import OpenedForJob
from fixres.models.probe import check_takes
from fixres.models.state_dicts import weights_digest
from fixres.observability.console import bar
from fixres.pipelines.runtime.atomic_files import open_own, resumable, write_json
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError, Loader, OpenLoader

VERSION = 1
_SECONDS_BETWEEN_NOTES = 2.0  # about the work that is lost when an extraction is killed


@dataclass(frozen=True)
class Extraction:
    """A finished extraction."""

    folder: Path
    num_images: int
    num_kept: int  # images that an earlier, interrupted run had extracted
    seconds: float  # of this run


def extract(
    job: ExtractJob,
    opened: OpenedForJob,
    open_loader: OpenLoader,
    names: list[str] | None = None,
    stored: Mapping[str, str | float] | None = None,
) -> Extraction:
    """Runs the job.

    Args:
        job: what to extract.
        opened: the network, for the classes of the data. The probabilities are those of all its outputs, the labels
            numbers of outputs.
        open_loader: the data.
        names: its images' names in order, stored beside the arrays; None if unknown.
        stored: identifies the pixels, so that an unfinished extraction is resumed on the same ones: the "engine" that
            reads them, the "fingerprint" of the stored images.
    """
    predictor, info = opened
    resolution = job.test_res or info.test_res
    check_takes(predictor.net, resolution)
    settings = {"crop": info.eval_crop, "resolution": resolution, "batch_size": job.batch_size}
    start = time.perf_counter()
    with closing(open_loader(job.split, **settings)) as loader:
        record = _record(job, predictor, info, loader, stored or {})
        with resumable(job.output, job.overwrite, folder=True, mark=RECORD) as unfinished:
            journal = _Journal(unfinished.journal, record, job.restart)
            kept = journal.num_done
            _run(predictor, loader, _Arrays(unfinished.data, journal, record))
            write_json(unfinished.data / RECORD, record)
            if names is not None:
                write_json(unfinished.data / NAMES, names)
        return Extraction(job.output, loader.num_samples, kept, time.perf_counter() - start)


def _record(
    job: ExtractJob, predictor: Predictor, info: CheckpointInfo, loader: Loader, stored: Mapping[str, str | float]
) -> dict[str, Any]:
    """All that the arrays depend on."""
    outputs = predictor.outputs
    return {
        "version": VERSION,
        "model": job.weights,
        "arch": info.model,
        "model_kwargs": info.model_kwargs,
        "weights": weights_digest(predictor.net),
        "resolution": loader.resolution,
        "crop_pct": info.crop_pct,
        "interpolation": info.interpolation,
        "mean": list(info.mean),
        "std": list(info.std),
        "data": str(job.images or job.data.path),
        **stored,
        "split": job.split,
        "num_images": loader.num_samples,
        "classes": list(info.classes),
        **({"outputs": outputs.positions.tolist()} if outputs is not None and outputs.is_subset else {}),
        "dtype": job.dtype,
        "batch_size": job.batch_size,
        "precision": predictor.precision.name,
        "device": predictor.precision.device.type,
        "torch": torch.__version__,
    }


class _Journal:
    """How many images are on disk: a line with the record, then a line for each note."""

    def __init__(self, path: Path, record: dict[str, Any], restart: bool) -> None:
        self.path, self._header = path, json.dumps(record, sort_keys=True)
        self.num_done = 0 if restart else self._read()
        if self.num_done == 0:
            with open(path, "w", opener=open_own) as file:
                file.write(self._header + "\n")

    def _read(self) -> int:
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        if not lines:
            return 0
        if lines[0] != self._header:
            raise InputError(f"{self.path} {_refusal(lines[0], self._header)}, or start again with --restart")
        return int(lines[-1]) if len(lines) > 1 and lines[-1].isdecimal() else 0

    def note(self, num_done: int) -> None:
        """Notes that the first `num_done` images are on disk."""
        self.num_done = num_done
        with open(self.path, "a", opener=open_own) as file:
            file.write(f"{num_done}\n")
            file.flush()
            os.fsync(file.fileno())


def _refusal(found: str, wanted: str) -> str:
    """The difference of two records, and the remedy."""
    try:
        old, new = decode_json(found), decode_json(wanted)
        differing = [key for key in new if old.get(key) != new[key]]
        which = "fingerprint" if "fingerprint" in differing else differing[0]
    except (ValueError, AttributeError, IndexError):
        return "belongs to an extraction with other settings; finish that one"
    values = f"{which}: {str(old.get(which))[:60]} instead of {str(new[which])[:60]}"
    if which == "fingerprint":
        return f"belongs to an extraction of other images ({values}); restore those"
    return f"belongs to an extraction with other settings ({values}); finish that one"


class _Arrays:
    """The memory-mapped .npy files of an unfinished extraction."""

    def __init__(self, folder: Path, journal: _Journal, record: dict[str, Any]) -> None:
        self._folder, self._journal, self._dtype = folder, journal, np.dtype(record["dtype"])
        self.num_images, self._num_classes = record["num_images"], len(record["classes"])
        self.num_done, self._noted = journal.num_done, time.perf_counter()
        self._is_new, self._arrays = self.num_done == 0, {}

    def append(self, rows: dict[str, Tensor]) -> None:
        """Stores a batch: a tensor of rows for each file."""
        self._arrays = self._arrays or self._open(rows)
        end = self.num_done + len(rows[LABELS])
        for name, values in rows.items():
            self._arrays[name][self.num_done : end] = self._converted(name, values)
        self.num_done = end
        if time.perf_counter() - self._noted > _SECONDS_BETWEEN_NOTES:
            self.flush()

    def flush(self) -> None:
        """Writes all rows to disk and notes their number."""
        for array in self._arrays.values():
            array.flush()
        self._journal.note(self.num_done)
        self._noted = time.perf_counter()

    def _converted(self, name: str, values: Tensor) -> np.ndarray:
        kind = self._arrays[name].dtype
        converted = values.cpu().numpy().astype(kind)
        if not np.isfinite(converted).all():
            raise InputError(f"{name}: values are not finite as {kind}; use --dtype float32, or another precision")
        return converted

    def _open(self, rows: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Creates the files, or opens those of an earlier run."""
        if (found := rows[SOFTMAX].shape[1]) != self._num_classes:
            raise InputError(f"the network gives {found} logits, not {self._num_classes}; open it again")
        arrays = {}
        for name, values in rows.items():
            shape, path = (self.num_images, *values.shape[1:]), self._folder / name
            kind = np.dtype(np.int64) if name == LABELS else self._dtype
            if self._is_new:
                path.unlink(missing_ok=True)  # none of ours, perhaps a link
                arrays[name] = np.lib.format.open_memmap(path, "w+", kind, shape)
                continue
            try:
                arrays[name] = np.empty(0) if path.is_symlink() else np.lib.format.open_memmap(path, "r+")
            except (OSError, ValueError, EOFError):
                arrays[name] = np.empty(0)
            if arrays[name].shape != shape or arrays[name].dtype != kind:
                raise InputError(f"{path} does not have the expected content; start again with --restart")
        return arrays


def _run(predictor: Predictor, loader: Loader, arrays: _Arrays) -> None:
    """Fills the arrays from the first missing image on."""
    num, kept = arrays.num_images, arrays.num_done
    loader.load_state_dict(loader.state_dict() | {"epoch": 0, "position": kept})
    predictor.net.eval()
    with torch.inference_mode(), inputs_of(_classifier(predictor.net)) as caught, bar(num, "extract", kept) as shown:
        for batch in loader if kept < num else ():
            _check_order(batch.indices, arrays.num_done)
            logits = predictor(batch.images)
            labels = (
                batch.labels if predictor.outputs is None else predictor.outputs.numbers(batch.labels.to(logits.device))
            )
            embeddings = pooled_input(caught, len(batch.labels))
            arrays.append({EMBEDDINGS: embeddings, SOFTMAX: logits.float().softmax(1), LABELS: labels})
            shown.update(len(batch.labels))
    if arrays.num_done != num:
        raise InputError(
            f"the loader gave {arrays.num_done} images of {num}; look for damaged ones with fixres inspect"
        )
    arrays.flush()


def _classifier(net: nn.Module) -> nn.Module:
    classifier = net.get_classifier()
    if not isinstance(classifier, nn.Linear | nn.Conv2d):
        raise InputError(f"{type(net).__name__} has no single linear classifier whose input could be extracted")
    return classifier


def _check_order(indices: Tensor, done: int) -> None:
    expected = torch.arange(done, done + len(indices))
    if torch.equal(indices.cpu(), expected):
        return
    if bool((indices < 0).any()):
        raise InputError("this engine does not report which image is which; use engine roc or torch")
    raise InputError("images were replaced or reordered; extraction needs each one: use --data.on_bad stop")

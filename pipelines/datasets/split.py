"""Splits class folders into train and val by symbolic links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.crop_index.location import SPLIT_RECORD
from fixres.pipelines.datasets.fingerprints import short_digest
from fixres.pipelines.runtime.atomic_files import atomic_folder, write_json
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.sampling.philox import STREAM_SPLIT, random_words
from fixres.pipelines.sources import open_folder
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import InputError

VAL_SHARE = 0.2
"""Share of each class that is held out for val."""


def split_folder(root: Path, work_dir: Path, seed: int) -> Path:
    """A folder with train/ and val/ of symbolic links to the images of `root`, an ImageFolder without a split.

    The split is stratified, depends only on the seed and the files' names, and is recorded in `split.json`. It is used
    again as long as the files are the same. A changed set of files is an error, because images would silently move
    between train and val.
    """
    source = open_folder(root.resolve())
    root = source.path
    files = [Path(file).relative_to(root).as_posix() for file in source.files]
    folder = work_dir / f"split-{root.name}-{short_digest(f'{root} {seed}')}"
    if folder.exists():
        _check_recorded(folder, root, files)
        return folder
    val = _stratified(source, seed)
    record = {
        "source": str(root),
        "seed": seed,
        "val_share": VAL_SHARE,
        "train": [file for file, held_out in zip(files, val, strict=True) if not held_out],
        "val": [file for file, held_out in zip(files, val, strict=True) if held_out],
    }
    with atomic_folder(folder) as partial:
        _link(record, root, partial)
        write_json(partial / SPLIT_RECORD, record)
    return folder


def _stratified(source: FilesSource, seed: int) -> np.ndarray:
    """bool (N,): whether each image is held out for val. Of each class it is VAL_SHARE, at least one, never all."""
    words = random_words(seed, STREAM_SPLIT, 0, np.arange(len(source)), 1)[:, 0]
    val = np.zeros(len(source), bool)
    for label, name in enumerate(source.classes):
        members = np.flatnonzero(source.labels == label)
        if len(members) < 2:
            raise InputError(
                f"class {name} of {source.path} has a single image, which cannot be split; add one or remove the class"
            )
        num_val = max(1, round(VAL_SHARE * len(members)))
        val[members[np.argsort(words[members], kind="stable")[:num_val]]] = True
    return val


def _link(record: dict, root: Path, folder: Path) -> None:
    for split in ("train", "val"):
        for file in record[split]:
            link = folder / split / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(root / file)


def _check_recorded(folder: Path, root: Path, files: Sequence[str]) -> None:
    try:
        record = decode_json((folder / SPLIT_RECORD).read_text())
        recorded = sorted(record["train"] + record["val"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder} has no readable {SPLIT_RECORD}; remove the folder to split {root} again") from None
    if recorded != sorted(files):
        changed = sorted(set(recorded) ^ set(files))
        raise InputError(
            f"{root} has changed since it was split ({len(changed)} files added or gone, such as {changed[0]}); remove"
            f" {folder} to split it again"
        )

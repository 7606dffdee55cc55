"""The data of a recipe: which layout a folder has, and what a report and a resumed run need to know of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fixres.config.transfer import DetectRecipe, TransferRecipe
from fixres.pipelines.spec import InputError
from fixres.transfer.layouts.annotations import BoxedData
from fixres.transfer.layouts.coco import coco_files, read_coco
from fixres.transfer.layouts.masks import MaskData, read_masks
from fixres.transfer.layouts.voc import read_voc, voc_folders


def read_data(recipe: TransferRecipe, folder: Path) -> BoxedData | MaskData:
    """Boxes or masks in `folder`, in any of the layouts.

    Raises:
        InputError: none of the layouts, or something wrong with the annotations.
    """
    config = recipe.data
    if not isinstance(recipe, DetectRecipe):
        return read_masks(folder, config.classes)
    if voc_folders(folder):
        return read_voc(folder, config.classes, config.on_bad)
    if coco_files(folder):
        return read_coco(folder, config.classes, config.on_bad)
    raise InputError(f"{folder}: no boxes in a known layout; docs/transfer.md shows the layouts")


def describe(recipe: TransferRecipe, data: BoxedData | MaskData) -> dict[str, Any]:
    """What the report has of the data; "fingerprint" identifies annotations and files."""
    digest = hashlib.sha256()
    for one in [*data.train, *data.test]:
        parts: list[Any] = [one.path.name, one.path.stat().st_size]
        if isinstance(data, BoxedData):
            parts += [one.boxes.tolist(), one.labels.tolist(), one.ignored.tolist()]
        else:
            parts += [one.mask.stat().st_size]
        digest.update(repr(parts).encode())
    return {
        "path": str(recipe.data.path),
        "classes": list(data.classes),
        "num_train": len(data.train),
        "num_val": len(data.test),
        "fingerprint": digest.hexdigest(),
    }

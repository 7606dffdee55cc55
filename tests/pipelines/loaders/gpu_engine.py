"""Shared by the tests of engine `roc-gpu`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fixres.pipelines.spec import LoaderConfig, TrainCrop


def config(path: Path, **changes: object) -> LoaderConfig:
    options = {"crop": TrainCrop(), "resolution": 48, "batch_size": 7, "shuffle": True, "seed": 3, "num_workers": 2}
    return LoaderConfig(path, **(options | changes))


def parts_of(batch: tuple) -> tuple[np.ndarray, ...]:
    return tuple(part.cpu().numpy().copy() for part in batch)


def check_same(ours: list[tuple], theirs: list[tuple]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for got, wanted in zip(one, other, strict=True):
            assert got.dtype == wanted.dtype and got.shape == wanted.shape and (got == wanted).all()

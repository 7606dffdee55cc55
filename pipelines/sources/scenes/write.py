"""Writes synthetic scenes as an ImageFolder of JPEG files with a `scenes.json`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import PIL

from fixres.pipelines.runtime.atomic_files import atomic_folder, write_json
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources.scenes.render import scene_jpeg, warm_up
from fixres.pipelines.sources.scenes.scene import SPLITS, SceneConfig, Split, scene_label

RECORD_NAME = "scenes.json"
# Raise this when the same parameters give other pictures, so that existing folders are drawn again.
GENERATOR_VERSION = 1


def scenes_record(config: SceneConfig) -> dict:
    """The contents of `scenes.json`: everything that the files depend on."""
    return {
        "generator": "synthetic scenes",
        "generator_version": GENERATOR_VERSION,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "classes": list(config.classes),
        "parameters": asdict(config),
    }


def is_complete(config: SceneConfig, folder: Path) -> bool:
    """Whether `folder` holds the complete data set of these parameters, made by these versions."""
    try:
        recorded = decode_json((folder / RECORD_NAME).read_text())
    except (OSError, ValueError):
        return False
    if recorded != json.loads(json.dumps(scenes_record(config))):
        return False
    present = {path.relative_to(folder).as_posix() for path in folder.glob("*/*/*.jpg")}
    return present == {scene_path(config, split, i) for split in SPLITS for i in range(config.num_images(split))}


def scene_path(config: SceneConfig, split: Split, index: int) -> str:
    """Path of image `index` in the data folder, with forward slashes."""
    return f"{split}/{config.classes[scene_label(config, index)]}/{index:05d}.jpg"


def write_scenes(
    config: SceneConfig, folder: Path, num_workers: int = 2, overwrite: bool = False, progress: bool = True
) -> Path:
    """Renders the data set. `folder` is written atomically: the files go to a temporary folder first.

    Args:
        config: parameters of the data set.
        folder: becomes an ImageFolder pair, `train/` and `val/`, and `scenes.json`.
        num_workers: threads that render, at least one.
        overwrite: replace an existing folder instead of refusing.
        progress: show a bar on stderr.
    """
    with atomic_folder(folder, overwrite) as partial:
        for split in SPLITS:
            for name in config.classes:
                (partial / split / name).mkdir(parents=True)
        _write_images(config, partial, num_workers, progress)
        write_json(partial / RECORD_NAME, scenes_record(config))
    return folder


def _write_images(config: SceneConfig, root: Path, num_workers: int, progress: bool) -> None:
    jobs = [(split, index) for split in SPLITS for index in range(config.num_images(split))]
    warm_up()
    # Threads, because most of the time is spent in code that releases the GIL; each process would import torch for 3 s.
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        try:
            done = pool.map(partial(_write_image, config, root), jobs)
            for _ in progress_bar(len(jobs), "drawing scenes", shown=progress, leave=True, iterable=done):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _write_image(config: SceneConfig, root: Path, job: tuple[Split, int]) -> None:
    split, index = job
    (root / scene_path(config, split, index)).write_bytes(scene_jpeg(config, split, index))

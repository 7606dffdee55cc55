"""Synthetic scenes with boxes and masks of everything that is drawn, in Pascal VOC's layout.

The pictures are those of `write`. An object's mask holds the pixels where it is seen; what lies in front hides the
rest. Its box is the smallest around them. An object of which less than a third is seen is marked difficult.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from fixres.pipelines.runtime.atomic_files import atomic_folder, write_json
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources.scenes.render import mark_thing, scene_jpeg, warm_up
from fixres.pipelines.sources.scenes.scene import DISTRACTOR_SHAPES, SPLITS, Scene, SceneConfig, draw_scene
from fixres.pipelines.sources.scenes.write import RECORD_NAME, scenes_record

_ANNOTATIONS_VERSION = 1  # raise it when the same scenes get other boxes or masks
_MIN_PIXELS = 16  # of a box; less of an object cannot be recognized
_DIFFICULT_SHARE = 1 / 3
_PALETTE = [value for k in range(256) for value in (k * 67 % 256, k * 113 % 256, k * 179 % 256)]


class SceneObject(NamedTuple):
    """An object that is seen.

    Attributes:
        label: in `object_classes`.
        box: x and y of its first pixel and of the pixel after its last, from 0.
        difficult: whether most of it is hidden or outside.
    """

    label: int
    box: tuple[int, int, int, int]
    difficult: bool


def object_classes(config: SceneConfig) -> tuple[str, ...]:
    """Classes of objects in label order: those of the scenes, then the distractors' shapes."""
    return (*config.classes, *DISTRACTOR_SHAPES)


def annotate_scene(config: SceneConfig, scene: Scene) -> tuple[list[SceneObject], np.ndarray]:
    """The objects of a scene from back to front, and its mask: uint8 (height, width), label + 1, 0 for background."""
    classes = object_classes(config)
    seen = np.full((scene.height, scene.width), -1, np.int16)
    sizes = [mark_thing(seen, thing, number) for number, thing in enumerate(scene.things)]
    labels = [scene.label if number == scene.target else classes.index(thing.shape)
              for number, thing in enumerate(scene.things)]  # fmt: skip
    mask = np.append(np.array(labels, np.uint8) + 1, np.uint8(0))[seen]  # the last entry is for -1
    objects = []
    for number, label in enumerate(labels):
        rows, columns = np.nonzero(seen == number)
        if len(rows) >= _MIN_PIXELS:
            box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            objects.append(SceneObject(label, box, len(rows) < _DIFFICULT_SHARE * sizes[number]))
    return objects, mask


def annotated_scenes(config: SceneConfig, work_dir: Path, progress: bool = True) -> Path:
    """The folder in `work_dir` with scenes, boxes and masks; drawn unless it is there already.

    It has JPEGImages, Annotations, SegmentationClass, ImageSets (lists train and val) and classes.txt, whose first name
    is the background's.
    """
    record = scenes_record(config) | {"annotations_version": _ANNOTATIONS_VERSION}
    folder = work_dir / f"annotated-scenes-{config.seed}-{config.num_train}-{config.num_val}"
    try:
        if decode_json((folder / RECORD_NAME).read_text()) == json.loads(json.dumps(record)):
            return folder
    except (OSError, ValueError):
        pass
    with atomic_folder(folder, overwrite=True, mark=RECORD_NAME) as partial:
        for inside in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
            (partial / inside).mkdir(parents=True)
        _write_all(config, partial, progress)
        (partial / "classes.txt").write_text("".join(f"{name}\n" for name in ("background", *object_classes(config))))
        write_json(partial / RECORD_NAME, record)
    return folder


def _write_all(config: SceneConfig, root: Path, progress: bool) -> None:
    for split in SPLITS:
        names = "".join(f"{_name(split, index)}\n" for index in range(config.num_images(split)))
        for inside in ("Main", "Segmentation"):
            (root / "ImageSets" / inside / f"{split}.txt").write_text(names)
    jobs = [(split, index) for split in SPLITS for index in range(config.num_images(split))]
    warm_up()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        done = pool.map(lambda job: _write_one(config, root, *job), jobs)
        for _ in progress_bar(len(jobs), "drawing scenes", shown=progress, leave=True, iterable=done):
            pass


def _name(split: str, index: int) -> str:
    return f"{split}_{index:05d}"


def _write_one(config: SceneConfig, root: Path, split: str, index: int) -> None:
    scene, name = draw_scene(config, split, index), _name(split, index)
    objects, mask = annotate_scene(config, scene)
    (root / "JPEGImages" / f"{name}.jpg").write_bytes(scene_jpeg(config, split, index))
    picture = Image.fromarray(mask, "P")
    picture.putpalette(_PALETTE)
    picture.save(root / "SegmentationClass" / f"{name}.png")
    (root / "Annotations" / f"{name}.xml").write_text(_xml(config, scene, name, objects))


def _xml(config: SceneConfig, scene: Scene, name: str, objects: list[SceneObject]) -> str:
    """An annotation as VOC's: pixels are counted from 1, and the last one is part of the box."""
    classes = object_classes(config)
    rows = [
        f"  <object>\n    <name>{escape(classes[one.label])}</name>\n    <difficult>{int(one.difficult)}</difficult>\n"
        f"    <bndbox><xmin>{one.box[0] + 1}</xmin><ymin>{one.box[1] + 1}</ymin>"
        f"<xmax>{one.box[2]}</xmax><ymax>{one.box[3]}</ymax></bndbox>\n  </object>\n"
        for one in objects
    ]
    size = f"  <size><width>{scene.width}</width><height>{scene.height}</height><depth>3</depth></size>\n"
    return f"<annotation>\n  <filename>{name}.jpg</filename>\n{size}{''.join(rows)}</annotation>\n"

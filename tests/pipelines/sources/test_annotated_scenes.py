"""Scenes with boxes and masks: they show what is drawn, and the pictures are the same as without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import VOCDetection, VOCSegmentation

from fixres.pipelines.sources.scenes.annotated import annotate_scene, annotated_scenes, object_classes
from fixres.pipelines.sources.scenes.render import render_scene, scene_jpeg
from fixres.pipelines.sources.scenes.scene import Scene, SceneConfig, Thing, draw_scene

SMALL = SceneConfig(num_classes=3, num_train=4, num_val=3, long_side=(64, 80), object_pixels=24)


def scene_of(*things: Thing, side: int = 128, target: int = 0) -> Scene:
    return Scene(0, side, side, things, target, (1.0, 0.0, 0.0), 0.0, 1)


def thing(**changes: object) -> Thing:
    return replace(
        Thing("disc", "plain", 12.0, 60.0, (64.0, 64.0), 0.2, 0.0, (0.0, 0.0), 1.0, ((0.0,) * 3,) * 2), **changes
    )


@pytest.mark.parametrize(
    ("shape", "aspect"),
    [("disc", 1), ("square", 1), ("cross", 1), ("triangle", 1), ("ring", 1), ("ellipse", 0.5), ("slab", 0.4)],
)
def test_a_mask_is_where_the_thing_changes_the_picture(shape: str, aspect: float) -> None:
    """Drawn in black and in white, a picture differs there and nowhere else."""
    one = thing(shape=shape, aspect=aspect)
    white = replace(one, colors=((255.0,) * 3,) * 2)
    differs = np.abs(render_scene(scene_of(one)).astype(int) - render_scene(scene_of(white)))[..., 0]
    objects, mask = annotate_scene(SceneConfig(), scene_of(one))
    assert (differs[mask == 0] <= 130).all() and (differs[mask > 0] > 20).all()  # the rim is half covered
    assert ((differs > 0) & (mask == 0)).mean() < 0.03
    rows, columns = np.nonzero(mask)
    assert objects[0].box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert objects[0].label == 0 and not objects[0].difficult


def test_what_is_behind_is_hidden_and_difficult_if_mostly_so() -> None:
    behind, front = thing(), thing(shape="ellipse", diameter=80.0, center=(64.0, 90.0), aspect=0.9)
    objects, mask = annotate_scene(SceneConfig(), scene_of(behind, front))
    classes = object_classes(SceneConfig())
    assert [classes[one.label] for one in objects] == [SceneConfig().classes[0], "ellipse"]
    assert objects[0].box[0] == 34 and objects[0].box[2] < 70 and not objects[1].difficult
    assert (mask == objects[0].label + 1).sum() + (mask == objects[1].label + 1).sum() == (mask > 0).sum()
    objects, _ = annotate_scene(SceneConfig(), scene_of(behind, replace(front, center=(64.0, 80.0))))
    assert objects[0].difficult
    objects, _ = annotate_scene(SceneConfig(), scene_of(replace(behind, center=(64.0, 148.0))))
    assert objects[0].difficult  # outside
    objects, _ = annotate_scene(SceneConfig(), scene_of(behind, replace(front, aspect=1.0, center=(64.0, 64.0))))
    assert [classes[one.label] for one in objects] == ["ellipse"]


def test_the_folder_has_the_pictures_boxes_and_masks_in_vocs_layout(tmp_path: Path) -> None:
    folder = annotated_scenes(SMALL, tmp_path / "work", progress=False)
    assert annotated_scenes(SMALL, tmp_path / "work", progress=False) == folder
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit/VOC2007").symlink_to(folder)
    boxes, masks = (kind(str(tmp_path), "2007", "val") for kind in (VOCDetection, VOCSegmentation))
    assert len(boxes) == len(masks) == 3
    for index in range(3):
        objects, mask = annotate_scene(SMALL, draw_scene(SMALL, "val", index))
        assert Path(boxes.images[index]).read_bytes() == scene_jpeg(SMALL, "val", index)
        assert np.array_equal(np.asarray(masks[index][1]), mask)
        found = [[int(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
                 for one in boxes[index][1]["annotation"]["object"]]  # fmt: skip
        assert found == [[x + 1, y + 1, right, bottom] for x, y, right, bottom in (one.box for one in objects)]
    names = (folder / "classes.txt").read_text().split()
    assert names == ["background", *SMALL.classes, "ellipse", "slab"]


def test_pinned() -> None:
    """If these literals change, raise annotated._ANNOTATIONS_VERSION."""
    config = SceneConfig()
    objects, mask = annotate_scene(config, draw_scene(config, "train", 3))
    counts = np.bincount(mask.ravel(), minlength=15)
    assert (len(objects), counts[4], counts[13], counts[14]) == (9, 20795, 4010, 4023)
    assert next(one for one in objects if one.label == 3).box == (164, 37, 357, 230)

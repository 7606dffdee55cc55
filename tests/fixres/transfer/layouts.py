"""Miniature data sets with boxes and masks: coded images with a bright rectangle for each object."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.coded import coded_image, jpeg

BOXES = {"a": (10, 8, 40, 30), "b": (30, 20, 60, 44)}
"""Edges of an object of each class; every image has one or both."""


def scene(code: int) -> tuple[np.ndarray, np.ndarray, list[tuple[str, tuple[int, int, int, int], bool]]]:
    """An image of 48 x 64 pixels, its mask (0 is the background), and its objects: class, edges, difficult."""
    image, mask = coded_image(48, 64, code), np.zeros((48, 64), np.uint8)
    objects = [("a", BOXES["a"], False)] if code % 3 != 1 else []
    objects += [("b", BOXES["b"], code % 4 == 3)] if code % 3 != 0 else []
    for name, (left, top, right, bottom), _ in objects:
        label = 1 + sorted(BOXES).index(name)
        image[top:bottom, left:right, 2] = 255
        image[top:bottom, left:right, label - 1] = 255
        mask[top:bottom, left:right] = label
    return image, mask, objects


def xml(objects: list, width: int = 64, height: int = 48) -> str:
    """An annotation of VOC, which counts pixels from 1."""
    rows = "".join(
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox><xmin>{left + 1}</xmin>"
        f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, (left, top, right, bottom), difficult in objects
    )
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{rows}</annotation>"


def write_voc(root: Path, train: int = 6, test: int = 4, lists: tuple[str, str] = ("train", "val")) -> Path:
    """VOC's layout of boxes and masks."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{root.name}_{k:03d}" for k in range(train + test)]
    for k, name in enumerate(names):
        image, mask, objects = scene(k)
        (root / f"JPEGImages/{name}.jpg").write_bytes(jpeg(image))
        (root / f"Annotations/{name}.xml").write_text(xml(objects))
        picture = Image.fromarray(mask, "P")
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(root / f"SegmentationClass/{name}.png")
    for inside, words in (("Main", lists), ("Segmentation", ("train", "val"))):
        for split, listed in zip(words, (names[:train], names[train:]), strict=True):
            (root / f"ImageSets/{inside}/{split}.txt").write_text("\n".join(listed) + "\n")
    (root / "classes.txt").write_text("background\na\nb\n")
    return root


def write_coco(root: Path, train: int = 6, test: int = 4) -> Path:
    """COCO's layout; difficult objects are crowds."""
    (root / "annotations").mkdir(parents=True)
    for split, codes in (("train2017", range(train)), ("val2017", range(train, train + test))):
        (root / split).mkdir()
        images, annotations = [], []
        for k in codes:
            image, _, objects = scene(k)
            (root / split / f"{k}.jpg").write_bytes(jpeg(image))
            images.append({"id": k, "file_name": f"{k}.jpg", "width": 64, "height": 48})
            for name, (left, top, right, bottom), crowd in objects:
                box = {"bbox": [left, top, right - left, bottom - top], "iscrowd": int(crowd)}
                known = {"id": len(annotations), "image_id": k, "category_id": {"a": 7, "b": 9}[name]}
                annotations.append(known | box)
        content = {"images": images, "annotations": annotations,
                   "categories": [{"id": 9, "name": "b"}, {"id": 7, "name": "a"}]}  # fmt: skip
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def write_ade(root: Path, train: int = 4, test: int = 3) -> Path:
    """ADE20K's layout: 0 is ignored, the classes are 1 to 150."""
    for split, codes in (("training", range(train)), ("validation", range(train, train + test))):
        for folder in ("images", "annotations"):
            (root / folder / split).mkdir(parents=True)
        for k in codes:
            image, mask, _ = scene(k)
            (root / f"images/{split}/ADE_{k}.jpg").write_bytes(jpeg(image))
            Image.fromarray(mask).save(root / f"annotations/{split}/ADE_{k}.png")
    return root


def write_folders(root: Path, train: int = 4, test: int = 3) -> Path:
    """Folders of images and masks."""
    for split, codes in (("train", range(train)), ("val", range(train, train + test))):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for k in codes:
            image, mask, _ = scene(k)
            Image.fromarray(image).save(root / f"images/{split}/{k}.png")
            Image.fromarray(mask).save(root / f"masks/{split}/{k}.png")
    (root / "classes.txt").write_text("background\na\nb\n")
    return root

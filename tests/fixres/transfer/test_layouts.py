"""Layouts of boxes and masks on miniatures; bad annotations end in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import VOCDetection

from fixres.pipelines.spec import InputError
from fixres.transfer.layouts.annotations import BoxedData
from fixres.transfer.layouts.coco import read_coco
from fixres.transfer.layouts.masks import read_masks
from fixres.transfer.layouts.voc import read_voc, read_xml
from tests.conftest import SHARED
from tests.fixres.transfer.layouts import scene, write_ade, write_coco, write_folders, write_voc, xml

BCCD = SHARED / "bccd"


def check(data: BoxedData, num_train: int, num_test: int) -> None:
    """The miniature's boxes, in the order of its images."""
    assert data.classes == ("a", "b") and (len(data.train), len(data.test)) == (num_train, num_test)
    for k, image in enumerate([*data.train, *data.test]):
        objects = scene(k)[2]
        assert (image.height, image.width) == (48, 64) and image.path.is_file()
        assert image.boxes.tolist() == [list(box) for _, box, _ in objects]
        assert [data.classes[label] for label in image.labels] == [name for name, _, _ in objects]
        assert image.ignored.tolist() == [difficult for _, _, difficult in objects]


def test_voc_and_coco_give_the_same_boxes(tmp_path: Path) -> None:
    check(read_voc(write_voc(tmp_path / "one")), 6, 4)
    check(read_coco(write_coco(tmp_path / "coco")), 6, 4)


def test_years_are_trained_together_and_tested_on_2007(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", 3, 2, ("trainval", "test"))
    write_voc(tmp_path / "VOC2012", 5, 2, ("trainval", "unused"))
    data = read_voc(tmp_path)
    assert [image.path.stem[:7] for image in data.train] == ["VOC2007"] * 3 + ["VOC2012"] * 5
    assert [image.path.stem for image in data.test] == ["VOC2007_003", "VOC2007_004"]


@pytest.mark.skipif(not BCCD.is_dir(), reason="no photographs with VOC annotations")
def test_photographs_agree_with_torchvisions_reader(tmp_path: Path) -> None:
    data = read_voc(BCCD)
    assert data.classes == ("Platelets", "RBC", "WBC") and (len(data.train), len(data.test)) == (292, 72)
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit/VOC2007").symlink_to(BCCD)
    reference = VOCDetection(str(tmp_path), "2007", "trainval")
    for k in (0, 100, 291):
        objects = reference[k][1]["annotation"]["object"]
        edges = [[float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for one in objects]
        assert np.array_equal(data.train[k].boxes + np.array([1, 1, 0, 0]), edges)


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def repeat(root: Path, split: str, number: int) -> None:
    with (root / f"ImageSets/Main/{split}.txt").open("a") as listed:
        listed.write(f"voc_{number:03d}\n")


FIRST = "Annotations/voc_000.xml"
BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>'
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "hostname">]><annotation>&b;</annotation>'
BAD_VOC: list[tuple[str, Callable[[Path], object], str]] = [
    ("outside", lambda root: replaced(root / FIRST, "<xmax>40", "<xmax>90"), r"\(10, 8, 90, 30\) of 'a' is outside"),
    ("thin", lambda root: replaced(root / FIRST, "<xmax>40", "<xmax>10.001"), r"\(10, 8, 10.001, 30\) .* has no area"),
    ("difficult", lambda root: replaced(root / FIRST, "cult>0", "cult>True"), "'True' is neither 0 nor 1"),
    ("no area", lambda root: replaced(root / FIRST, "<xmax>40", "<xmax>10"), r"\(10, 8, 10, 30\) of 'a' has no area"),
    ("not finite", lambda root: replaced(root / FIRST, "<xmax>40", "<xmax>nan"), "is not finite"),
    ("no number", lambda root: replaced(root / FIRST, "<xmax>40", "<xmax>4O"), "bndbox/xmax '4O' is not a number"),
    ("no box", lambda root: replaced(root / FIRST, "bndbox>", "box>"), "bndbox/xmin is missing"),
    ("no name", lambda root: replaced(root / FIRST, "<name>a</name>", ""), "an object without a name"),
    ("no size", lambda root: replaced(root / FIRST, "<width>64", "<width>0"), "an image of 0 x 48 pixels"),
    ("no image", lambda root: (root / "JPEGImages/voc_000.jpg").unlink(), "voc_000.jpg does not exist"),
    ("no annotation", lambda root: (root / FIRST).unlink(), "voc_000.xml does not exist"),
    ("no list", lambda root: (root / "ImageSets/Main/train.txt").unlink(), "train.txt does not exist"),
    ("a path", lambda root: (root / "ImageSets/Main/train.txt").write_text("../x\n"), "'../x' is not the name"),
    ("a zero", lambda root: (root / "ImageSets/Main/train.txt").write_text("x\0\n"), r"'x\\x00' is not the name"),
    ("repeated", lambda root: repeat(root, "train", 0), "voc_000.jpg: 2 samples have this image"),
    ("tested", lambda root: repeat(root, "train", 6), "voc_006.jpg: 2 samples have this image"),
    ("no objects", lambda root: [path.write_text(xml([])) for path in root.glob("Annotations/voc_00[0-5].xml")],
     "voc_000.xml: no object that counts in this or any other of the 6 training"),
    ("no test objects", lambda root: [path.write_text(xml([])) for path in root.glob("Annotations/voc_00[6-9].xml")],
     "voc_006.xml: no object that counts in this or any other of the 4 test"),
    ("empty", lambda root: (root / "ImageSets/Main/val.txt").write_text(""), "6 training and 0 test images"),
    ("truncated", lambda root: (root / FIRST).write_text(xml([])[:40]), "not an XML file"),
    ("entities", lambda root: (root / FIRST).write_text(BOMB), "with a document type"),
    ("a file", lambda root: (root / FIRST).write_text(FILE), "with a document type"),
    ("deep", lambda root: (root / FIRST).write_text("<a>" * 99 + "</a>" * 99), "elements inside one another"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in BAD_VOC], ids=[row[0] for row in BAD_VOC])
def test_bad_voc_annotations_end_in_one_line(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    spoil(root)
    with pytest.raises(InputError, match=message) as error:
        read_voc(root)
    assert "\n" not in str(error.value)


def test_unknown_classes_and_leaving_out_bad_boxes(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    with pytest.raises(InputError, match=r"of 'b' is of an unknown class; the classes are a, c \(.*--data.on-bad skip"):
        read_voc(root, ["a", "c"])
    data = read_voc(root, ["a", "c"], on_bad="skip")
    assert data.num_bad == sum(name == "b" for k in range(10) for name, _, _ in scene(k)[2])
    assert {int(label) for image in data.train for label in image.labels} == {0}


def test_lists_may_be_of_windows_and_names_have_spaces(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    for place in ("JPEGImages/{}.jpg", "Annotations/{}.xml", "SegmentationClass/{}.png"):
        (root / place.format("voc_000")).rename(root / place.format("a photo 1"))
        (root / place.format("voc_001")).rename(root / place.format("Größe"))
    for inside in ("Main", "Segmentation"):
        text = "\ufeffGröße\r\na photo 1\r\n\r\n"
        (root / f"ImageSets/{inside}/train.txt").write_bytes(text.encode())
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfbackground\r\na\r\nb\r\n")
    masks = read_masks(root)
    for data in (read_voc(root), masks):
        assert [one.path.stem for one in data.train] == ["Größe", "a photo 1"]
    assert masks.classes == ("background", "a", "b")


def test_a_box_may_reach_a_pixel_beyond_the_image(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    replaced(root / FIRST, "<xmin>11", "<xmin>0")
    assert read_voc(root).train[0].boxes.tolist() == [[0, 8, 40, 30]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\[0\].bbox is not"),
        (lambda content: content["annotations"][0].update(bbox=[60, 8, 30, 22]), "is outside of the image"),
        (lambda content: content["annotations"][0].update(bbox=[10, 8, 0, 22]), "has no area"),
        (lambda content: content["annotations"][0].update(bbox=[10**400, 8, 1, 22]), r"annotations\[0\].bbox is not"),
        (lambda content: content["annotations"][0].update(iscrowd="0"), r"annotations\[0\].iscrowd is '0', not 0 or 1"),
        (lambda content: content["images"][1].update(file_name="0.jpg"), "0.jpg: 2 samples have this image"),
        (
            lambda content: content["annotations"][0].update(category_id=8),
            "unknown class, category_id=8; there are 7, 9",
        ),
        (lambda content: content["annotations"][0].update(image_id=99), "boxes of image 99, which is not in the list"),
        (lambda content: content["images"][0].update(file_name="../../secret.jpg"), "leads out of"),
        (lambda content: content["images"][0].update(file_name="none.jpg"), "none.jpg does not exist"),
        (lambda content: content["images"][0].update(height=True), r"images\[0\].height is True, not a whole number"),
        (lambda content: content["images"][1].update(id=0), r"images\[1\] has the id of an earlier image, 0"),
        (
            lambda content: content["categories"][1].update(id=9),
            r"categories\[1\] has the id or the name of an earlier",
        ),
        (lambda content: content["categories"][1].update(name="b"), r"categories\[1\] has the id or the name of an"),
        (lambda content: content.pop("categories"), "no lists images, categories and annotations"),
    ],
)
def test_bad_coco_annotations_end_in_one_line(change: Callable[[dict], object], message: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        read_coco(root)
    assert "\n" not in str(error.value)


def test_annotations_of_two_years_in_one_folder_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    (root / "annotations/instances_train2014.json").write_text("{}")
    with pytest.raises(InputError, match=r"train2014.json and instances_train2017.json are both of the train"):
        read_coco(root)


def test_layouts_of_masks(tmp_path: Path) -> None:
    voc = read_masks(write_voc(tmp_path / "voc"))
    ade = read_masks(write_ade(tmp_path / "ade"))
    folders = read_masks(write_folders(tmp_path / "folders"))
    assert voc.classes == folders.classes == ("background", "a", "b")
    assert (len(voc.train), len(voc.test), voc.first) == (6, 4, 0)
    assert (len(ade.train), len(ade.test), ade.first, len(ade.classes)) == (4, 3, 1, 150)
    assert [one.mask.name for one in folders.test] == ["4.png", "5.png", "6.png"]
    (tmp_path / "voc/classes.txt").unlink()
    assert len(read_masks(tmp_path / "voc").classes) == 21
    table = "Idx\tRatio\tTrain\tVal\tName\n" + "".join(f"{k}\t0.1\t2\t3\tthing {k}\n" for k in range(1, 151))
    (tmp_path / "ade/objectInfo150.txt").write_text(table)
    assert read_masks(tmp_path / "ade").classes[149] == "thing 150"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "masks/train/0.png").unlink(), "its mask .*0.png does not exist"),
        (lambda root: (root / "classes.txt").unlink(), "names of the classes are unknown; write classes.txt"),
        (
            lambda root: (root / "classes.txt").write_text("background\na\na\n"),
            "classes.txt: the name 'a' is there 2 times",
        ),
        (
            lambda root: (root / "images/train/1.png").rename(root / "images/train/0.jpg"),
            "0.png: 2 samples have this mask",
        ),
        (lambda root: (root / "images/train/0.png").rename(root / "images/train/0.bmp"), "0.bmp: images end in .jpeg"),
        (lambda root: (root / "masks").rename(root / "other"), "no masks in a known layout"),
        (lambda root: (root / "images/val").rename(root / "images/other"), "no folder val in it"),
    ],
)
def test_missing_files_of_masks_end_in_one_line(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    root = write_folders(tmp_path / "folders")
    spoil(root)
    with pytest.raises(InputError, match=message):
        read_masks(root)


def test_a_safe_parser_still_reads_plain_xml(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?><!-- x --><annotation><a>&lt;&#65;</a></annotation>')
    assert read_xml(tmp_path / "a.xml").findtext("a") == "<A"

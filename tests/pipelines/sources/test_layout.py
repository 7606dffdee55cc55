"""Where splits and classes are: every reader of a folder finds the same, or says in one line why not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.api.splits import split_path, val_beside
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.datasets.eval_data import SingleSplit
from fixres.pipelines.datasets.fingerprints import fingerprint
from fixres.pipelines.datasets.prepared import PreparedData
from fixres.pipelines.datasets.resolve import resolve_data
from fixres.pipelines.sources import open_source, open_stored
from fixres.pipelines.sources.imagenet.flat import FlatSource
from fixres.pipelines.spec import DataConfig, InputError
from tests.coded import coded_image, jpeg
from tests.pipelines.datasets.folders import one_line, photos
from tests.pipelines.sources.miniatures import tar_bytes

SPLITS = (("training", "train"), ("test", "val"))
PHOTO = jpeg(coded_image(16, 16))
READERS: dict[str, Callable[[Path], object]] = {
    "convert": open_source,
    "engines": open_stored,
    "--images": lambda path: SingleSplit(path, DataConfig(engine="torch"), "cpu"),
}


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PHOTO)
    return root


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Val"),
        ("Training", "Testing"),
        ("TRAIN", "valid"),
        ("training", "Validation"),
        ("train", "test"),
        ("archive/train", "archive/valid"),
        ("archive/pictures/Training", "archive/pictures/Testing"),
    ],
)
def test_splits_are_found_by_every_reader(
    train: str, val: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    photos(root / train, {"ant": 3, "bee": 2})
    photos(root / val, {"ant": 1, "bee": 1})
    (root / "__MACOSX" / "archive").mkdir(parents=True)
    found = resolve_data(str(root), tmp_path / "work")
    assert found == (root / train, root / val, ("ant", "bee"))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"training images: {root / train}, 5 images of 2 classes",
        f"test images: {root / val}, 2 images of 2 classes",
    ]
    assert [len(open_source(root, split=split)) for split in ("train", "val")] == [5, 2]
    assert [split_path(root, train) for train in (True, False)] == [root / train, root / val]
    assert val_beside(root / train) == root / val
    for name, opened in READERS.items():
        with pytest.raises(InputError, match=r"holds the splits .*; give one of them, such as") as caught:
            opened(root)
        assert str(root / "archive" if "/" in train else root / train) in one_line(caught), name


def test_the_sizes_of_single_and_converted_splits_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path / "photos", {"ant": 1, "bee": 2})
    READERS["--images"](tmp_path / "photos")
    assert capsys.readouterr().err == f"test images: {tmp_path / 'photos'}, 3 images of 2 classes\n"
    for split in ("train", "val"):
        to_beton = ConversionConfig("ffcv", num_workers=0, progress=False)
        convert(tmp_path / "photos", tmp_path / "done" / f"{split}.beton", to_beton)
    resolve_data(str(tmp_path / "done"), tmp_path / "work")
    place = f"{tmp_path / 'done'}"
    said = [f"{name} images: {place}/{split}.beton, 3 images of 2 classes" for name, split in SPLITS]
    assert capsys.readouterr().err.splitlines() == said


def test_test_images_are_not_used_beside_validation_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "val", "test"):
        photos(tmp_path / name, {"ant": 2, "bee": 2})
    made(tmp_path, "samples/1.jpg")
    (tmp_path / "annotations").mkdir()
    assert resolve_data(str(tmp_path), tmp_path.parent / "work").val == tmp_path / "val"
    said = [line for line in capsys.readouterr().err.splitlines() if "not read" in line]
    because = "not read, because train and val beside it are the data"
    assert said == [f"{tmp_path}/samples: {because}", f"{tmp_path}/test: {because}"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("train/a/1.jpg", "Train/b/1.jpg"), "holds two folders of the split train, Train and train; move one"),
        (("val/a/1.jpg", "valid/a/1.jpg", "train/a/1.jpg"), "two folders of the split val, val and valid"),
        (
            ("seg_train/seg_train/a/1.jpg", "seg_test/seg_test/a/1.jpg"),
            "seg_test and seg_train, which look like splits, not classes; rename them train and val, or give one",
        ),
        (("cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg"), "/cat holds test and train: splits inside of"),
        (("archive/train/a/1.jpg", "archive/val/a/1.jpg", "more/a/1.jpg"), "/archive holds train and val: splits"),
    ],
)
def test_what_could_be_splits_or_classes_is_refused(names: tuple[str, ...], says: str, tmp_path: Path) -> None:
    root = made(tmp_path / "photos", *names)
    for opened in (*READERS.values(), lambda path: resolve_data(str(path), tmp_path / "work")):
        with pytest.raises(InputError, match=says) as caught:
            opened(root)
        one_line(caught)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name, other in (("bus/1.jpg", "train/1.jpg"), ("test_tube/x/1.jpg", "jar/1.jpg")):
        assert len(open_source(made(tmp_path / name[:3], name, other)).classes) == 2


def test_class_folders_may_lie_deeper(tmp_path: Path) -> None:
    photos(tmp_path / "photos" / "archive", {"ant": 5, "bee": 5})
    found = resolve_data(str(tmp_path / "photos"), tmp_path / "work")
    assert found.classes == open_source(tmp_path / "photos").classes == ("ant", "bee")
    assert sorted(path.name for path in found.train.iterdir()) == ["ant", "bee"]
    made(tmp_path / "tiny", "n01/images/1.jpg", "n02/images/1.jpg")
    assert open_source(tmp_path / "tiny").classes == ("n01", "n02")


def test_hidden_files_are_never_classes_or_images(tmp_path: Path) -> None:
    made(tmp_path, "ant/1.jpg", "bee/2.jpg")
    names = open_source(tmp_path).files
    before = fingerprint([tmp_path])
    made(
        tmp_path, ".ipynb_checkpoints/1.jpg", "__MACOSX/ant/1.jpg", "ant/._1.jpg", "ant/.ipynb_checkpoints/1-copy.jpg",
        "bee/.DS_Store", "bee/Thumbs.db", "bee/@eaDir/2.jpg", "ant.jpg/.hidden.jpg",
    )  # fmt: skip
    (tmp_path / "ant.jpg" / ".hidden.jpg").unlink()
    (tmp_path / "ant.jpg").rmdir()
    for opened in READERS.values():
        source = opened(tmp_path)
        assert tuple(source.classes) == ("ant", "bee")
    assert open_source(tmp_path).files == names and fingerprint([tmp_path]) == before


def test_what_is_left_out_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "ant/1.jpg", "bee/2.jpg", "bee/IMG_1.HEIC", "bee/IMG_2.HEIC", "ant/notes.txt", "stray.png")
    (tmp_path / "ant.tar").write_bytes(tar_bytes({"1.jpg": PHOTO}))
    for opened in READERS.values():
        assert tuple(opened(tmp_path).classes) == ("ant", "bee")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(str(tmp_path))]
    assert said == [
        f"{tmp_path}: 1 image beside the class folders left out, such as stray.png; images need a class folder",
        f"{tmp_path}: 1 .tar file beside the class folders left out, such as ant.tar",
        f"{tmp_path}: 3 files left out by ending (2 .heic, 1 .txt), such as {tmp_path}/ant/notes.txt; 2 pictures of"
        " them in formats that are not read: convert them to JPEG",
    ]


def test_an_empty_class_says_what_it_holds(tmp_path: Path) -> None:
    made(tmp_path, "ant/1.jpg", "bee/IMG_1.HEIC")
    with pytest.raises(
        InputError, match=r"/bee holds no images \(1 of 2 .*IMG_1.HEIC, a format that is not read: convert it to JPEG"
    ):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["ant/9.jpg", "9.jpg"])
@pytest.mark.parametrize("linked", [False, True])
def test_pipes_and_devices_do_not_make_anything_wait(name: str, linked: bool, tmp_path: Path) -> None:
    root = made(tmp_path / "photos", "ant/1.jpg", "bee/2.jpg")
    for harmless in ("ant/queue", "data.tar", "train.beton", "val.beton", "x.parquet"):
        os.mkfifo(root / harmless)
    for opened in READERS.values():
        assert tuple(opened(root).classes) == ("ant", "bee")
    assert fingerprint([root])
    assert resolve_data(str(made(root, "ant/3.jpg", "bee/3.jpg")), tmp_path / "work").classes == ("ant", "bee")
    (root / name).symlink_to("/dev/zero") if linked else os.mkfifo(root / name)
    for opened in (*READERS.values(), lambda path: resolve_data(str(path), tmp_path / "work")):
        with pytest.raises(InputError, match=f"/{name} is a pipe, a socket or a device, not an image file; remove it"):
            opened(root)


def test_a_pipe_that_takes_the_place_of_an_image_is_a_bad_sample(tmp_path: Path) -> None:
    source = open_source(made(tmp_path, "ant/1.jpg", "bee/2.jpg"))
    (tmp_path / "ant" / "1.jpg").unlink()
    os.mkfifo(tmp_path / "ant" / "1.jpg")
    with pytest.raises(InputError, match=r"ant/1.jpg: cannot be read \(not a regular file\)"):
        source.read(0)
    os.mkfifo(tmp_path / "pipe")
    for opened in READERS.values():
        with pytest.raises(InputError, match="neither a file nor a folder"):
            opened(tmp_path / "pipe")


def test_pictures_without_classes_are_one_class_for_the_converter_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(tmp_path / "holiday", "1.jpg", "2.jpg", "._1.jpg", "3.HEIC")
    source = open_source(root)
    assert source.classes == ("holiday",) and len(source) == 2 and not isinstance(source, FlatSource)
    said = capsys.readouterr().err
    assert "so all 2 images are one class, holiday; that measures throughput" in said and "(1 .heic)" in said
    for opened in (open_stored, lambda path: resolve_data(str(path), tmp_path / "work")):
        with pytest.raises(InputError, match="has no class folders"):
            opened(root)
    with pytest.raises(InputError, match="/val has no class folders"):
        open_source(made(tmp_path / "x", "train/ant/1.jpg", "val/1.jpg"), split="val")


def test_one_class_is_refused_for_training_only(tmp_path: Path) -> None:
    root = made(tmp_path / "x", "train/ant/1.jpg", "val/ant/2.jpg")
    data = PreparedData(DataConfig(path=str(root), work_dir=tmp_path / "work", engine="torch"), "cpu")
    assert len(data.labels("val")) == 1
    with pytest.raises(InputError, match="/train has a single class, ant; training needs two or more") as caught:
        data.prepare()
    one_line(caught)


def test_archives_of_class_folders(tmp_path: Path) -> None:
    members = {f"photos/Train/{name}/{k}.jpg": PHOTO + bytes([k]) for k in (2, 1) for name in ("bee", "ant")}
    members |= {"photos/._x.jpg": b"x", "photos/readme.txt": b"x", "photos/Test/ant/7.jpg": PHOTO}
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    source = open_source(tmp_path / "a.tar", split="train")
    assert source.classes == ("ant", "bee") and source.labels.tolist() == [0, 0, 1, 1]
    assert [source.read(i)[-1] for i in range(4)] == [1, 2, 1, 2]
    assert source.name(0).endswith("a.tar: photos/Train/ant/1.jpg")
    assert len(open_source(tmp_path / "a.tar", split="val")) == 1
    for opened, says in (
        (open_source, "holds the splits val, train, test; choose one with --split of fixres convert"),
        (open_stored, r"which engines cannot read; convert it: fixres convert .*a\.tar"),
        (READERS["--images"], r"a \.tar of class folders; convert it first: fixres convert"),
    ):
        with pytest.raises(InputError, match=says):
            opened(tmp_path / "a.tar")
    for bad in ({"a/1.jpg": PHOTO, "a/1.jpg/2.jpg": PHOTO}, {"../a/1.jpg": PHOTO}, {"/a/1.jpg": PHOTO}):
        (tmp_path / "b.tar").write_bytes(tar_bytes(bad))
        with pytest.raises(InputError, match=r"exists twice|has no plain name"):
            open_source(tmp_path / "b.tar")
    (tmp_path / "c.tar").write_bytes(tar_bytes({"a/1.jpg": PHOTO, "a/1.cls": b"0"}))
    with pytest.raises(InputError, match="is one shard; give the folder"):
        open_source(tmp_path / "c.tar")

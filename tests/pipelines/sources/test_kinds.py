"""Which kind `open_source` recognizes, what it refuses to guess, and splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.imagenet_classes import imagenet_synsets
from fixres.pipelines.sources import KINDS, open_source, open_stored
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.sources.imagenet.ilsvrc import IlsvrcSource
from fixres.pipelines.sources.imagenet.imagenet_v2 import ImageNetV2Source
from fixres.pipelines.sources.imagenet.kaggle import KaggleSource
from fixres.pipelines.sources.kinds import recognize
from fixres.pipelines.sources.splits import split_of
from fixres.pipelines.spec import InputError
from tests.pipelines.sources import miniatures as mini
from tests.pipelines.sources.miniatures import Photos, contents, expected


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_source(path, **options)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def write_flat(root: Path, val: Photos) -> Path:
    root.mkdir(parents=True)
    for (_, name), data in val.items():
        (root / name).write_bytes(data)
    mini.write_devkit(root.parent, val)
    return root


def write_all(root: Path, train: Photos, val: Photos) -> dict[str, Path]:
    folder = mini.write_folder(root / "folder" / "train", train)
    convert(folder, root / "beton" / "train.beton", ConversionConfig("ffcv", num_workers=0, progress=False))
    return {
        "folder": folder.parent,
        "imagenet_v2": mini.write_imagenet_v2(root / "v2", train),
        "flat": write_flat(root / "flat", val),
        "ilsvrc": mini.write_ilsvrc(root / "ilsvrc", train, val),
        "kaggle": mini.write_kaggle(root / "kaggle", train, val),
        "parquet": mini.write_parquet(root / "parquet" / "data", train, "train", None).parent,
        "webdataset": mini.write_webdataset(root / "shards", train, "train"),
        "beton": root / "beton",
        "tar": mini.write_tar(root / "tar" / "photos.tar", train, "photos/Training"),
    }


def test_each_kind_is_recognized(train: Photos, val: Photos, tmp_path: Path) -> None:
    paths = write_all(tmp_path, train, val)
    assert {kind: recognize(path) for kind, path in paths.items()} == {kind: kind for kind in KINDS}
    assert recognize(paths["folder"] / "train") == "folder"
    assert recognize(paths["kaggle"] / "ILSVRC") == "kaggle"
    assert recognize(paths["parquet"] / "data" / "train-00000-of-00003.parquet") == "parquet"
    for kind, path in paths.items():
        split = None if kind in ("imagenet_v2", "flat") else "train"
        num_images = mini.NUM_IMAGES + (988 if kind == "imagenet_v2" else 0)
        assert len(open_source(path, split=split)) == len(open_source(path, kind, split)) == num_images


def test_two_kinds_in_one_folder_are_refused(train: Photos, val: Photos, tmp_path: Path) -> None:
    root = mini.write_ilsvrc(tmp_path / "x", train, val)
    mini.write_folder(root / "train", train)
    refused(root, r"ilsvrc \(.*\) and folder \(.*\); .* choose one with fixres convert --source-kind", split="train")
    assert isinstance(open_source(root, "ilsvrc", "train"), IlsvrcSource)
    assert isinstance(open_source(root, "folder", "train"), FolderSource)
    shards = mini.write_webdataset(mini.write_folder(tmp_path / "y", train), train, "train")
    refused(shards, "webdataset .* and folder")
    assert isinstance(open_source(shards, "webdataset"), TarSource)


def test_other_archives_of_ilsvrc_are_not_shards(train: Photos, val: Photos, tmp_path: Path) -> None:
    root = mini.write_ilsvrc(tmp_path / "x", train, val)
    (root / "ILSVRC2012_img_test_v10102019.tar").write_bytes(b"")
    assert contents(open_source(root, split="train")) == expected(train)


def test_only_a_thousand_numbered_folders_are_imagenet_v2(train: Photos, tmp_path: Path) -> None:
    root = mini.write_imagenet_v2(tmp_path / "x", train)
    for opened in (open_source(root), open_stored(root)):
        assert isinstance(opened, ImageNetV2Source) and opened.classes == imagenet_synsets()
    assert list(open_source(root, "folder").classes) == ImageFolder(str(root)).classes
    (root / "11").rename(root / "011")
    for opened in (open_source(root), open_stored(root)):
        assert isinstance(opened, FolderSource) and list(opened.classes) == ImageFolder(str(root)).classes
    refused(root, "not laid out as ImageNet-V2: it needs class folders with names from 0 to 999", kind="imagenet_v2")


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_split_of_a_folder(word: str, train: Photos, val: Photos, tmp_path: Path) -> None:
    mini.write_folder(tmp_path / "train", train)
    mini.write_folder(tmp_path / word, val)
    assert contents(open_source(tmp_path, split="val")) == expected(val)
    refused(tmp_path, "holds the splits")
    refused(tmp_path, "has no test/ with class folders", split="test")
    refused(tmp_path / "train", "has no val/ with class folders", split="val")


def test_split_folders_of_shards_and_numbers(train: Photos, val: Photos, tmp_path: Path) -> None:
    mini.write_webdataset(tmp_path / "x" / "train", train, "")
    mini.write_webdataset(tmp_path / "x" / "val", val, "")
    assert {data for _, data in contents(open_source(tmp_path / "x", split="val"))} == set(val.values())
    mini.write_imagenet_v2(tmp_path / "y" / "val", val)
    assert isinstance(open_source(tmp_path / "y", split="val"), ImageNetV2Source)


def test_splits_that_do_not_exist(train: Photos, val: Photos, tmp_path: Path) -> None:
    paths = write_all(tmp_path, train, val)
    for kind in set(KINDS) - {"ilsvrc", "kaggle", "flat"}:
        refused(paths[kind], "val", split="val")
    refused(paths["flat"], "has no train/", split="train")
    assert contents(open_source(paths["flat"], split="val")) == expected(val)
    refused(paths["kaggle"], "choose train or val with --split$")
    refused(paths["kaggle"], "not 'test', whose images have no labels", split="test")
    refused(paths["beton"] / "train.beton", "one file without splits", split="train")
    with pytest.raises(InputError, match="split='dev' is unknown; choose train, val, test"):
        open_source(paths["folder"], split="dev")
    assert isinstance(open_source(paths["beton"], split="train"), BetonReader)


def test_wrong_calls_are_reported(train: Photos, tmp_path: Path) -> None:
    root = mini.write_folder(tmp_path / "x", train)
    with pytest.raises(InputError, match="kind='zip' is unknown; choose auto, folder"):
        open_source(root, "zip")
    refused(root, "bring their labels; omit --val-labels", val_labels=root)
    for kind, message in (
        ("ilsvrc", "holds neither"),
        ("kaggle", "not laid out as Kaggle's"),
        ("parquet", "no .parquet files"),
    ):
        refused(root, message, kind=kind)
    refused(root, "holds no .tar shards", kind="webdataset")
    refused(tmp_path / "nowhere", "does not exist")


def _rows(change: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        table = root / "LOC_val_solution.csv"
        table.write_text("\n".join(change(table.read_text().splitlines())))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_rows(lambda lines: lines[:-1]), "has no label of ILSVRC2012_val_000000"),
        (_rows(lambda lines: [*lines, "ILSVRC2012_val_00000077,n01440764 1 2 3 4"]), "_00000077 is missing there"),
        (_rows(lambda lines: [*lines[:-1], lines[-1].split(",")[0] + ", "]), "line 25 has no label"),
        (lambda root: (root / "LOC_val_solution.csv").unlink(), "LOC_val_solution.csv is missing; .*--val-labels"),
        (lambda root: (root / "ILSVRC/Data/CLS-LOC/val").rename(root / "ILSVRC/away"), "CLS-LOC/val does not exist"),
        (lambda root: (root / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.png").touch(), "with two endings"),
    ],
)
def test_wrong_kaggle_folders_are_reported(
    spoil: Callable[[Path], object], message: str, train: Photos, val: Photos, tmp_path: Path
) -> None:
    root = mini.write_kaggle(tmp_path / "x", train, val)
    spoil(root)
    refused(root, message, split="val")


def test_kaggles_names_and_others_labels(train: Photos, val: Photos, tmp_path: Path) -> None:
    root = mini.write_kaggle(tmp_path / "x", train, val)
    source = open_source(root, split="val")
    assert isinstance(source, KaggleSource) and source.class_names[0] == "Kaggle's n01440764, x"
    (root / "LOC_synset_mapping.txt").unlink()
    assert open_source(root, split="val").class_names[7] == "crane"
    (root / "LOC_val_solution.csv").rename(tmp_path / "labels.csv")
    assert contents(open_source(root, split="val", val_labels=tmp_path / "labels.csv")) == expected(val)


def test_flat_images_without_labels_and_with_a_list(
    val: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_flat(tmp_path / "x", val)
    monkeypatch.chdir(root)
    assert contents(open_source(Path("."))) == expected(val)
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").rename(tmp_path / "away.tar.gz")
    refused(root, "has no labels: put ILSVRC2012_devkit_t12.tar.gz next to it")
    (tmp_path / "list.txt").write_text("\n".join(synset for _, synset in sorted((name, s) for s, name in val)))
    assert contents(open_source(root, val_labels=tmp_path / "list.txt")) == expected(val)
    next(root.iterdir()).unlink()
    refused(root, "has 24 labels, but .* holds 23 images", val_labels=tmp_path / "list.txt")


def test_words_of_splits() -> None:
    names = {
        "train-00000-of-00294-1e2f.parquet": "train",
        "validation-00000-of-00014.parquet": "val",
        "imagenet_train-000000-train.tar": "train",
        "imagenet1k-validation-00.tar": "val",
        "test-00000-of-00028.parquet": "test",
        "shard-000000.tar": None,
        "training.tar": "train",
        "Testing-0.tar": "test",
        "trainer.tar": None,
        "train-val-0.tar": None,
    }
    assert {name: split_of(name) for name in names} == names

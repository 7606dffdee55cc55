"""One set of photographs in every layout: classes, labels and bytes are the same, and torchvision's."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.imagenet_classes import class_names_of, imagenet_synsets
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import Source
from tests.pipelines.sources import miniatures as mini
from tests.pipelines.sources.miniatures import NUMBERS, SYNSETS, Photos, contents, expected

Write = Callable[[Path, Photos, Photos], Path]


def _folder(root: Path, train: Photos, val: Photos) -> Path:
    mini.write_folder(root / "train", train)
    mini.write_folder(root / "val", val)
    return root


def _flat(root: Path, train: Photos, val: Photos) -> Path:
    """The unpacked official archives, with the devkit next to val/."""
    mini.write_folder(root / "train", train)
    (root / "val").mkdir()
    for (_, name), data in val.items():
        (root / "val" / name).write_bytes(data)
    mini.write_devkit(root, val)
    return root


def _parquet(root: Path, train: Photos, val: Photos) -> Path:
    for split, photos in (("train", train), ("validation", val)):
        mini.write_parquet(root / "data", photos, split, None)
    return root


def _shards(label: str) -> Write:
    def write(root: Path, train: Photos, val: Photos) -> Path:
        for split, photos in (("train", train), ("validation", val)):
            mini.write_webdataset(root, photos, split, label)
        return root

    return write


# Layouts whose labels number the classes that occur, in ImageFolder's order.
BY_NAME: dict[str, Write] = {
    "folder": _folder,
    "flat": _flat,
    "ilsvrc": mini.write_ilsvrc,
    "kaggle": mini.write_kaggle,
}
# Layouts whose labels are ImageNet's numbers, in stored order.
BY_NUMBER: dict[str, Write] = {"parquet": _parquet, "cls": _shards("cls"), "json": _shards("json")}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("layout", [*BY_NAME, *BY_NUMBER, "synset"])
def test_synsets_and_bytes_are_the_same(layout: str, split: str, train: Photos, val: Photos, tmp_path: Path) -> None:
    write = {**BY_NAME, **BY_NUMBER, "synset": _shards("synset")}[layout]
    source = open_source(write(tmp_path / "x", train, val), split=split)
    wanted = expected(train if split == "train" else val)
    assert isinstance(source, Source) and len(source) == len(wanted) == source.labels.size
    assert sorted(contents(source)) == sorted(wanted)
    if layout in BY_NAME:
        assert contents(source) == wanted
    assert list(source.classes) == sorted(source.classes)
    assert source.classes == (imagenet_synsets() if layout in BY_NUMBER else SYNSETS)
    assert len(class_names_of(source)) == len(source.classes)
    assert "Tinca" in class_names_of(source)[0] or layout == "kaggle"


@pytest.mark.parametrize("layout", list(BY_NAME))
def test_labels_and_order_are_imagefolders(layout: str, train: Photos, val: Photos, tmp_path: Path) -> None:
    unpacked = ImageFolder(str(mini.write_folder(tmp_path / "unpacked", val)))
    source = open_source(BY_NAME[layout](tmp_path / "x", train, val), split="val")
    assert {name: k for k, name in enumerate(source.classes)} == unpacked.class_to_idx
    assert source.labels.tolist() == unpacked.targets
    assert [source.read(i) for i in range(len(source))] == [Path(file).read_bytes() for file, _ in unpacked.samples]
    assert all(Path(file).name in source.name(i) for i, (file, _) in enumerate(unpacked.samples))


@pytest.mark.parametrize("layout", list(BY_NUMBER))
def test_numbers_are_kept(layout: str, train: Photos, val: Photos, tmp_path: Path) -> None:
    source = open_source(BY_NUMBER[layout](tmp_path / "x", train, val), split="train")
    assert source.labels.tolist() == [NUMBERS[synset] for synset, _ in train]
    assert class_names_of(source)[134] == "crane" == class_names_of(source)[517]


def test_folders_named_by_class_number_are_the_synsets(train: Photos, tmp_path: Path) -> None:
    source = open_source(mini.write_imagenet_v2(tmp_path / "x", train))
    assert source.classes == imagenet_synsets() and source.labels.tolist() == sorted(source.labels.tolist())
    photos = [(synset, data) for synset, data in contents(source) if synset in NUMBERS]
    assert photos == expected(train)
    others = [(source.classes.index(synset), data) for synset, data in contents(source) if synset not in NUMBERS]
    assert [number for number, _ in others] == [int(data) for _, data in others] and len(others) == 988
    some = open_source(mini.write_imagenet_v2(tmp_path / "some", train, whole=False), "imagenet_v2")
    assert some.classes == SYNSETS and contents(some) == expected(train)


@pytest.mark.parametrize("layout", [*BY_NAME, *BY_NUMBER])
def test_a_source_works_after_pickle_and_fork(layout: str, train: Photos, val: Photos, tmp_path: Path) -> None:
    source = open_source({**BY_NAME, **BY_NUMBER}[layout](tmp_path / "x", train, val), split="train")
    wanted = [source.read(i) for i in range(len(source))]  # before the fork, so that files and caches would be shared
    assert [pickle.loads(pickle.dumps(source)).read(i) for i in (0, len(source) - 1)] == [wanted[0], wanted[-1]]
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        assert list(pool.map(source.read, range(len(source)))) == wanted


@pytest.mark.parametrize("format", ["ffcv", "webdataset"])
@pytest.mark.parametrize("layout", ["ilsvrc", "kaggle", "parquet"])
def test_converted_labels_are_imagefolders(
    layout: str, format: str, train: Photos, val: Photos, tmp_path: Path
) -> None:
    unpacked = ImageFolder(str(mini.write_folder(tmp_path / "unpacked", train)))
    source = open_source({**BY_NAME, **BY_NUMBER}[layout](tmp_path / "x", train, val), split="train")
    convert(source, tmp_path / "done", ConversionConfig(format, num_workers=2, progress=False))
    done = open_source(tmp_path / "done")
    numbers = NUMBERS if layout in BY_NUMBER else unpacked.class_to_idx
    wanted = sorted((numbers[unpacked.classes[label]], Path(file).read_bytes()) for file, label in unpacked.samples)
    assert sorted((int(done.labels[i]), done.read(i)) for i in range(len(done))) == wanted
    assert {name: done.classes.index(name) for name in SYNSETS} == numbers

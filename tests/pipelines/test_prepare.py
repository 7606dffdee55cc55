"""Data found, split and stored once, and every way in which that can go wrong said in one line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from pipelines import convert as converter
from pipelines import prepare
from pipelines.beton import BetonReader
from pipelines.prepare import SPLIT_RECORD, VAL_SHARE, find_data, prepare_scenes, split_folder, stored_for
from pipelines.sources.folder import FolderSource
from pipelines.sources.scenes import SceneConfig
from pipelines.sources.tars import TarSource
from pipelines.spec import BadSampleError, InputError
from tests.coded import coded_image, jpeg, write_coded_folder

SMALL = SceneConfig(num_classes=3, num_train=6, num_val=3, long_side=(64, 80), object_pixels=24)


def photos(root: Path, num_per_class: dict[str, int]) -> Path:
    """An ImageFolder of small different JPEG files."""
    for label, (name, num) in enumerate(num_per_class.items()):
        (root / name).mkdir(parents=True)
        for i in range(num):
            (root / name / f"{i:03d}.jpg").write_bytes(jpeg(coded_image(20 + i, 24 + label, label)))
    return root


def pair(root: Path, train: dict[str, int], val: dict[str, int]) -> Path:
    photos(root / "train", train)
    photos(root / "val", val)
    return root


def listing(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(root)): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))}


def one_line(caught: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pair_is_taken_as_it_is(tmp_path: Path) -> None:
    root = pair(tmp_path / "data", {"ant": 2, "bee": 1}, {"bee": 1, "ant": 1})
    found = find_data(str(root), tmp_path / "work")
    assert found == (root / "train", root / "val", ("ant", "bee"))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("train", "val", "says"),
    [
        ({"ant": 1, "bee": 1}, {"ant": 1}, "class bee is in .*train but not in .*val"),
        ({"ant": 1}, {"ant": 1, "bee": 1}, "class bee is in .*val but not in .*train"),
        ({"ant": 1, "bee": 0}, {"ant": 1, "bee": 1}, "bee holds no images"),
        ({"ant": 1, "bee": 1}, {"ant": 0, "bee": 1}, "ant holds no images"),
    ],
)
def test_classes_must_agree(tmp_path: Path, train: dict[str, int], val: dict[str, int], says: str) -> None:
    root = pair(tmp_path / "data", train, val)
    with pytest.raises(InputError, match=says) as caught:
        find_data(str(root), tmp_path / "work")
    one_line(caught)


@pytest.mark.parametrize(("there", "missing"), [("train", "val"), ("val", "train")])
def test_half_a_pair_is_named(tmp_path: Path, there: str, missing: str) -> None:
    photos(tmp_path / "data" / there, {"ant": 3, "bee": 3})
    with pytest.raises(InputError, match=f"has {there}/ .* no {missing}/") as caught:
        find_data(str(tmp_path / "data"), tmp_path / "work")
    one_line(caught)


def test_missing_empty_and_classless_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(jpeg(coded_image(16, 16)))
    for name, says in (("nowhere", "is no folder"), ("empty", "is empty"), ("flat", "no class folders")):
        with pytest.raises(InputError, match=says) as caught:
            find_data(str(tmp_path / name), tmp_path / "work")
        assert name in one_line(caught)
    assert not (tmp_path / "work").exists()


def test_work_inside_the_data_is_refused(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 3, "bee": 3})
    with pytest.raises(InputError, match="inside the data"):
        find_data(str(root), root / "work")
    assert not (root / "work").exists()


def test_class_called_train_is_a_class(tmp_path: Path) -> None:
    root = photos(tmp_path / "vehicles", {"bus": 5, "train": 5})
    assert find_data(str(root), tmp_path / "work").classes == ("bus", "train")


def test_split_is_stratified_complete_recorded_and_leaves_the_source_alone(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 10, "bee": 2, "cow": 31})
    before = listing(root)
    found = find_data(str(root), tmp_path / "work", seed=3)
    assert listing(root) == before
    sides = {split: ImageFolder(getattr(found, split)) for split in ("train", "val")}
    assert all(tuple(side.classes) == found.classes == ("ant", "bee", "cow") for side in sides.values())
    assert np.bincount(sides["val"].targets).tolist() == [2, 1, 6]
    real = {split: {os.path.realpath(path) for path, _ in side.samples} for split, side in sides.items()}
    assert not real["train"] & real["val"]
    assert real["train"] | real["val"] == {str(p) for p in root.resolve().rglob("*.jpg")}
    record = json.loads((found.train.parent / SPLIT_RECORD).read_text())
    for split in ("train", "val"):
        assert {str(root.resolve() / file) for file in record[split]} == real[split]


def sides_of(folder: Path) -> tuple[list[str], list[str]]:
    record = json.loads((folder / SPLIT_RECORD).read_text())
    return record["train"], record["val"]


def test_split_depends_on_the_seed_only_and_is_found_again(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 20, "bee": 20})
    first = split_folder(root, tmp_path / "work", 0)
    made = listing(first)
    assert split_folder(root, tmp_path / "work", 0) == first
    assert listing(first) == made
    assert sides_of(split_folder(root, tmp_path / "elsewhere", 0)) == sides_of(first)
    assert sides_of(split_folder(root, tmp_path / "work", 1)) != sides_of(first)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert sides_of(split_folder(moved, tmp_path / "work", 0)) == sides_of(first)


def test_pinned_split(tmp_path: Path) -> None:
    """A change here silently changes everybody's test set: it needs a line in the change log."""
    folder = split_folder(photos(tmp_path / "data", {"ant": 10, "bee": 5}), tmp_path / "work", 0)
    assert sides_of(folder)[1] == ["ant/001.jpg", "ant/006.jpg", "bee/003.jpg"]


def test_changed_source_is_not_split_behind_the_back(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 5, "bee": 5})
    folder = split_folder(root, tmp_path / "work", 0)
    shutil.copy(root / "ant" / "000.jpg", root / "ant" / "new.jpg")
    with pytest.raises(InputError, match=r"has changed .*ant/new\.jpg.*remove"):
        split_folder(root, tmp_path / "work", 0)
    (root / "ant" / "new.jpg").unlink()
    (folder / SPLIT_RECORD).write_text("{")
    with pytest.raises(InputError, match=r"no readable split\.json"):
        split_folder(root, tmp_path / "work", 0)


def test_single_image_cannot_be_split(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 5, "bee": 1})
    with pytest.raises(InputError, match=r"class bee .* single image"):
        find_data(str(root), tmp_path / "work")
    assert not (tmp_path / "work").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.integers(0, 2**63 - 1))
def test_each_class_keeps_its_share(counts: list[int], seed: int) -> None:
    class Source:
        path = Path("data")
        classes = tuple(f"c{k}" for k in range(len(counts)))
        labels = np.repeat(np.arange(len(counts)), counts)

        def __len__(self) -> int:
            return len(self.labels)

    val = prepare._stratified(Source(), seed)
    for label, count in enumerate(counts):
        held_out = val[Source.labels == label].sum()
        assert 1 <= held_out < count
        assert abs(held_out - VAL_SHARE * count) <= 1


def test_scenes_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare_scenes(SMALL, tmp_path)
    assert FolderSource(folder / "train").classes == SMALL.classes
    made = listing(folder)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_scenes", lambda *_, **__: pytest.fail("drawn again"))
        assert prepare_scenes(SMALL, tmp_path) == folder
    next(folder.rglob("*.jpg")).unlink()
    assert prepare_scenes(SMALL, tmp_path) == folder
    assert listing(folder).keys() == made.keys()


def test_strange_folder_in_the_scenes_place_is_kept(tmp_path: Path) -> None:
    folder = prepare_scenes(SMALL, tmp_path)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not made by this program"):
        prepare_scenes(SMALL, tmp_path)
    assert (folder / "thesis.tex").exists()


def test_word_scenes_gives_the_default_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def small_scenes(config: SceneConfig, work_dir: Path) -> Path:
        asked.append(config)
        return pair(work_dir / "small", {"ant": 1}, {"ant": 1})

    monkeypatch.setattr(prepare, "prepare_scenes", small_scenes)
    assert find_data("scenes", tmp_path, seed=7).classes == ("ant",)
    assert asked == [SceneConfig(seed=7)]


@pytest.mark.parametrize("failure", [URLError("no network"), RuntimeError("File not found or\ncorrupted.")])
def test_failed_download_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(root: str, **_: object) -> None:
        (Path(root) / "imagenette2-320.tgz").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(torchvision.datasets, "Imagenette", fail)
    with pytest.raises(InputError, match=r"imagenette could not be downloaded .*scenes") as caught:
        find_data("imagenette", tmp_path)
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_download_is_kept_for_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(root: str, **options: object) -> None:
        calls.append(options)
        pair(Path(root) / "imagenette2-320", {"n01": 1, "n02": 1}, {"n01": 1, "n02": 1})
        (Path(root) / "imagenette2-320.tgz").write_bytes(b"archive")

    monkeypatch.setattr(torchvision.datasets, "Imagenette", download)
    found = [find_data("imagenette", tmp_path) for _ in range(2)]
    assert found[0] == found[1] and found[0].classes == ("n01", "n02")
    assert calls == [{"split": "train", "size": "320px", "download": True}]
    assert [p.name for p in found[0].train.parent.parent.iterdir()] == ["imagenette2-320"]


@pytest.mark.parametrize("engine", ["torch", "dali-slice"])
def test_engines_that_read_folders_get_the_folder(tmp_path: Path, engine: str) -> None:
    root = photos(tmp_path / "data", {"ant": 2})
    assert stored_for(engine, root, tmp_path / "work", 500, 90, 0) == root
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("engine", "reader"), [("ffcv", BetonReader), ("dali", TarSource)])
def test_stored_file_is_made_once_and_again_when_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, reader: type
) -> None:
    root = photos(tmp_path / "data" / "train", {"ant": 3, "bee": 2})
    calls = []
    whole_convert = converter.convert
    monkeypatch.setattr(converter, "convert", lambda *a, **k: calls.append(a) or whole_convert(*a, **k, progress=False))

    def store(max_side: int = 500, quality: int = 90) -> Path:
        return stored_for(engine, root, tmp_path / "work", max_side, quality, 0)

    stored = store()
    source, read = FolderSource(root), reader(stored)
    assert [read.read(i) for i in range(len(read))] == [source.read(i) for i in range(len(source))]
    assert read.classes == ("ant", "bee") and read.labels.tolist() == source.labels.tolist()
    assert store() == stored and len(calls) == 1
    assert store(max_side=16) != stored and len(calls) == 2
    os.utime(source.files[1], ns=(1, 1))
    assert store() == stored and len(calls) == 3
    Path(source.files[0]).unlink()
    assert len(reader(store())) == 4 and len(calls) == 4
    stored.with_name(stored.name + ".json").unlink()  # as after a crash between the file and its record
    store()
    assert len(calls) == 5


def test_two_folders_of_one_name_are_stored_apart(tmp_path: Path) -> None:
    roots = [photos(tmp_path / name / "data" / "train", {"ant": 1 + i}) for i, name in enumerate(("a", "b"))]
    stored = [stored_for("dali", root, tmp_path / "work", 500, 90, 0) for root in roots]
    assert stored[0] != stored[1]
    assert [len(TarSource(path)) for path in stored] == [1, 2]


def test_folders_whose_names_are_no_text(tmp_path: Path) -> None:
    """A path may hold bytes that are not UTF-8, such as those of an archive packed on an older system."""
    root = photos(tmp_path / os.fsdecode(b"caf\xe9") / "train", {"ant": 3, os.fsdecode(b"gu\xeape"): 2})
    stored = stored_for("ffcv", root, tmp_path / "work", 500, 90, 0)
    assert BetonReader(stored).classes == FolderSource(root).classes
    assert stored_for("ffcv", root, tmp_path / "work", 500, 90, 0) == stored
    data = find_data(str(root), tmp_path / "work")
    assert len(FolderSource(data.train)) + len(FolderSource(data.val)) == 5


def test_bad_image_stops_or_is_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = photos(tmp_path / "data", {"ant": 3, "bee": 2})
    (root / "bee" / "001.jpg").write_bytes(b"no image")
    with pytest.raises((InputError, BadSampleError), match=r"bee/001\.jpg") as caught:
        stored_for("dali", root, tmp_path / "work", 500, 90, 0)
    one_line(caught)
    stored = stored_for("dali", root, tmp_path / "work", 500, 90, 0, on_bad="replace")
    assert len(TarSource(stored)) == 4
    assert "bee/001.jpg" in caplog.text


def test_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="engine='fast' does not exist; choose one of torch"):
        stored_for("fast", tmp_path, tmp_path / "work", 500, 90, 0)


def test_engines_are_those_of_the_loaders() -> None:
    from pipelines.loaders import ENGINES

    assert set(prepare._STORED_AS) == set(ENGINES)


def test_coded_folder_splits(tmp_path: Path) -> None:
    root = write_coded_folder(tmp_path / "coded", [(32, 40)] * 10, num_classes=2)
    found = find_data(str(root), tmp_path / "work")
    assert len(ImageFolder(found.train)) == 8 and len(ImageFolder(found.val)) == 2

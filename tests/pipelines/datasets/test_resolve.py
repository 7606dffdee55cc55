"""Data that is found, generated or downloaded; every error is one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
import torchvision
from torchvision.datasets import ImageFolder

from fixres.pipelines.datasets import resolve
from fixres.pipelines.datasets.resolve import prepare_scenes, resolve_data
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.sources.scenes.scene import SceneConfig
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg, write_coded_folder
from tests.pipelines.datasets.folders import listing, one_line, pair, photos

SMALL = SceneConfig(num_classes=3, num_train=6, num_val=3, long_side=(64, 80), object_pixels=24)


def test_an_existing_pair_is_used_unchanged(tmp_path: Path) -> None:
    root = pair(tmp_path / "data", {"ant": 2, "bee": 1}, {"bee": 1, "ant": 1})
    found = resolve_data(str(root), tmp_path / "work")
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
        resolve_data(str(root), tmp_path / "work")
    one_line(caught)


@pytest.mark.parametrize(("there", "missing"), [("train", "val"), ("val", "train")])
def test_half_a_pair_is_reported(tmp_path: Path, there: str, missing: str) -> None:
    photos(tmp_path / "data" / there, {"ant": 3, "bee": 3})
    with pytest.raises(InputError, match=f"has {there}/ .* no {missing}/") as caught:
        resolve_data(str(tmp_path / "data"), tmp_path / "work")
    one_line(caught)


def test_missing_empty_and_classless_folders_are_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(jpeg(coded_image(16, 16)))
    for name, says in (("nowhere", "is not a folder"), ("empty", "is empty"), ("flat", "no class folders")):
        with pytest.raises(InputError, match=says) as caught:
            resolve_data(str(tmp_path / name), tmp_path / "work")
        assert name in one_line(caught)
    assert not (tmp_path / "work").exists()


def test_work_inside_the_data_is_refused(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 3, "bee": 3})
    with pytest.raises(InputError, match="inside the data"):
        resolve_data(str(root), root / "work")
    assert not (root / "work").exists()


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    root = photos(tmp_path / "vehicles", {"bus": 5, "train": 5})
    assert resolve_data(str(root), tmp_path / "work").classes == ("bus", "train")


def test_scenes_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare_scenes(SMALL, tmp_path)
    assert FolderSource(folder / "train").classes == SMALL.classes
    made = listing(folder)
    with monkeypatch.context() as patch:
        patch.setattr(resolve, "write_scenes", lambda *_, **__: pytest.fail("drawn again"))
        assert prepare_scenes(SMALL, tmp_path) == folder
    next(folder.rglob("*.jpg")).unlink()
    assert prepare_scenes(SMALL, tmp_path) == folder
    assert listing(folder).keys() == made.keys()


def test_a_foreign_folder_under_the_scenes_name_is_kept(tmp_path: Path) -> None:
    folder = prepare_scenes(SMALL, tmp_path)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not made by this program"):
        prepare_scenes(SMALL, tmp_path)
    assert (folder / "thesis.tex").exists()


def test_the_word_scenes_gives_the_default_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def small_scenes(config: SceneConfig, work_dir: Path) -> Path:
        asked.append(config)
        return pair(work_dir / "small", {"ant": 1}, {"ant": 1})

    monkeypatch.setattr(resolve, "prepare_scenes", small_scenes)
    assert resolve_data("scenes", tmp_path, seed=7).classes == ("ant",)
    assert asked == [SceneConfig(seed=7)]


@pytest.mark.parametrize("failure", [URLError("no network"), RuntimeError("File not found or\ncorrupted.")])
def test_failed_download_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(root: str, **_: object) -> None:
        (Path(root) / "imagenette2-320.tgz").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(torchvision.datasets, "Imagenette", fail)
    with pytest.raises(InputError, match=r"imagenette could not be downloaded .*scenes") as caught:
        resolve_data("imagenette", tmp_path)
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(root: str, **options: object) -> None:
        calls.append(options)
        pair(Path(root) / "imagenette2-320", {"n01": 1, "n02": 1}, {"n01": 1, "n02": 1})
        (Path(root) / "imagenette2-320.tgz").write_bytes(b"archive")

    monkeypatch.setattr(torchvision.datasets, "Imagenette", download)
    found = [resolve_data("imagenette", tmp_path) for _ in range(2)]
    assert found[0] == found[1] and found[0].classes == ("n01", "n02")
    assert calls == [{"split": "train", "size": "320px", "download": True}]
    assert [p.name for p in found[0].train.parent.parent.iterdir()] == ["imagenette2-320"]


def test_coded_folder_splits(tmp_path: Path) -> None:
    root = write_coded_folder(tmp_path / "coded", [(32, 40)] * 10, num_classes=2)
    found = resolve_data(str(root), tmp_path / "work")
    assert len(ImageFolder(found.train)) == 8 and len(ImageFolder(found.val)) == 2

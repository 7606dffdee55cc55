"""Folders as engines read them: converted once, and again when anything changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixres.pipelines.conversion import converter
from fixres.pipelines.datasets import conversion_cache
from fixres.pipelines.datasets.conversion_cache import convert_for_engine
from fixres.pipelines.datasets.resolve import resolve_data
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.spec import DataConfig, InputError
from tests.pipelines.datasets.folders import one_line, photos


def options(tmp_path: Path, **changes: object) -> DataConfig:
    return DataConfig(work_dir=tmp_path / "work", num_workers=0, **changes)


@pytest.mark.parametrize("engine", ["torch", "roc", "roc-gpu", "dali-slice"])
def test_engines_that_read_folders_get_the_folder_itself(tmp_path: Path, engine: str) -> None:
    root = photos(tmp_path / "data", {"ant": 2})
    assert convert_for_engine(engine, root, options(tmp_path)) == root
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("engine", "reader"), [("ffcv", BetonReader), ("dali", TarSource)])
def test_a_folder_is_converted_again_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, reader: type
) -> None:
    root = photos(tmp_path / "data" / "train", {"ant": 3, "bee": 2})
    calls = []
    whole_convert = converter.convert
    monkeypatch.setattr(converter, "convert", lambda *a: calls.append(a) or whole_convert(*a))

    def store(max_side: int = 500, quality: int = 90) -> Path:
        return convert_for_engine(engine, root, options(tmp_path, max_side=max_side, quality=quality))

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


def test_the_place_of_a_converted_copy_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "data", {"ant": 1, "bee": 1})
    stored = convert_for_engine("ffcv", root, options(tmp_path))
    said = f"{root} is converted once for this engine and these options, into {stored}; later runs reuse it\n"
    assert said in capsys.readouterr().err
    convert_for_engine("ffcv", root, options(tmp_path))
    assert "is converted" not in capsys.readouterr().err


def test_two_folders_of_one_name_are_converted_separately(tmp_path: Path) -> None:
    roots = [photos(tmp_path / name / "data" / "train", {"ant": 1 + i}) for i, name in enumerate(("a", "b"))]
    stored = [convert_for_engine("dali", root, options(tmp_path)) for root in roots]
    assert stored[0] != stored[1]
    assert [len(TarSource(path)) for path in stored] == [1, 2]


def test_folder_names_that_are_not_utf8(tmp_path: Path) -> None:
    """A path may hold bytes that are not UTF-8, such as those of an archive packed on an older system."""
    root = photos(tmp_path / os.fsdecode(b"caf\xe9") / "train", {"ant": 3, os.fsdecode(b"gu\xeape"): 2})
    stored = convert_for_engine("ffcv", root, options(tmp_path))
    assert BetonReader(stored).classes == FolderSource(root).classes
    assert convert_for_engine("ffcv", root, options(tmp_path)) == stored
    data = resolve_data(str(root), tmp_path / "work")
    assert len(FolderSource(data.train)) + len(FolderSource(data.val)) == 5


@pytest.mark.parametrize("on_bad", ["stop", "replace"])
@pytest.mark.parametrize("kind", ["no image", "a broken link"])
def test_a_bad_image_stops_the_conversion(kind: str, on_bad: str, tmp_path: Path) -> None:
    """With either `on_bad`, because names and labels must be those of the folder."""
    root = photos(tmp_path / "data", {"ant": 3, "bee": 2})
    bad = root / "bee" / "001.jpg"
    bad.unlink()
    bad.write_bytes(b"no image") if kind == "no image" else bad.symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        with pytest.raises(InputError, match=r"bee/001\.jpg") as caught:
            convert_for_engine("dali", root, options(tmp_path, on_bad=on_bad))
        one_line(caught)
    bad.unlink()
    bad.write_bytes((root / "bee" / "000.jpg").read_bytes())
    assert len(TarSource(convert_for_engine("dali", root, options(tmp_path, on_bad=on_bad)))) == 5


def test_unknown_engine_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="engine='fast' does not exist; choose one of torch"):
        convert_for_engine("fast", tmp_path, options(tmp_path))


def test_engines_are_those_of_the_loaders() -> None:
    from fixres.pipelines.loaders import ENGINES

    assert set(conversion_cache._FORMATS) == set(ENGINES)

"""Folders as engines read them: stored once, and anew when anything changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.conversion import converter
from pipelines.datasets import conversion_cache as storing
from pipelines.datasets.conversion_cache import stored_for
from pipelines.datasets.resolve import find_data
from pipelines.formats.beton_reader import BetonReader
from pipelines.formats.webdataset_reader import TarSource
from pipelines.sources.folder import FolderSource
from pipelines.spec import BadSampleError, InputError
from tests.pipelines.datasets.folders import one_line, photos


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


@pytest.mark.parametrize("kind", ["no image", "a link to nowhere"])
def test_bad_image_stops_or_is_left_out_and_logged(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = photos(tmp_path / "data", {"ant": 3, "bee": 2})
    bad = root / "bee" / "001.jpg"
    bad.unlink()
    bad.write_bytes(b"no image") if kind == "no image" else bad.symlink_to(tmp_path / "nowhere")
    with pytest.raises((InputError, BadSampleError), match=r"bee/001\.jpg") as caught:
        stored_for("dali", root, tmp_path / "work", 500, 90, 0)
    one_line(caught)
    stored = stored_for("dali", root, tmp_path / "work", 500, 90, 0, on_bad="replace")
    assert len(TarSource(stored)) == 4
    assert "bee/001.jpg" in caplog.text
    assert stored_for("dali", root, tmp_path / "work", 500, 90, 0, on_bad="replace") == stored
    assert caplog.text.count("bee/001.jpg") == 1  # it was not made again


def test_unknown_engine_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="engine='fast' does not exist; choose one of torch"):
        stored_for("fast", tmp_path, tmp_path / "work", 500, 90, 0)


def test_engines_are_those_of_the_loaders() -> None:
    from pipelines.loaders import ENGINES

    assert set(storing._STORED_AS) == set(ENGINES)

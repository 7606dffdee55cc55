"""Fingerprints: what they depend on, and which changes of a file are noticed during a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.pipelines.datasets.fingerprints import Unchanged, fingerprint
from fixres.pipelines.spec import InputError

_EDGE = 1 << 16


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def test_a_folders_names_matter_but_not_its_path_and_times(photos: Path, tmp_path: Path) -> None:
    seen = fingerprint([photos])
    copy = Path(shutil.copytree(photos, tmp_path / "elsewhere" / "copy"))
    os.utime(copy / "a" / "1.jpg", (1, 1))
    assert fingerprint([copy]) == seen and len(seen) == 16 and int(seen, 16) >= 0
    (copy / "a" / "1.jpg").write_bytes(b"another image")  # documented: of images in folders only the names are read
    assert fingerprint([copy]) == seen


def _add(photos: Path) -> None:
    (photos / "b" / "2.jpg").touch()


def _remove(photos: Path) -> None:
    (photos / "a" / "2.jpg").unlink()


def _rename(photos: Path) -> None:
    (photos / "a" / "2.jpg").rename(photos / "a" / "3.jpg")


def _to_another_class(photos: Path) -> None:
    (photos / "a" / "2.jpg").rename(photos / "b" / "2.jpg")


def _a_class(photos: Path) -> None:
    (photos / "a").rename(photos / "c")


@pytest.mark.parametrize("change", [_add, _remove, _rename, _to_another_class, _a_class])
def test_other_names_give_another_fingerprint(photos: Path, change: Callable[[Path], None]) -> None:
    seen = fingerprint([photos])
    change(photos)
    assert fingerprint([photos]) != seen


def test_the_order_of_the_splits_matters(photos: Path) -> None:
    assert fingerprint([photos / "a", photos / "b"]) != fingerprint([photos / "b", photos / "a"])


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 3 * _EDGE), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_at_the_ends_of_a_file_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, size: int, place: float, bit: int
) -> None:
    """Any bit in the first and last 64 KiB changes it; a bit between them does not, as documented."""
    path = tmp_path_factory.mktemp("bits") / "train.beton"
    content = bytearray(os.urandom(size))
    path.write_bytes(content)
    seen, offset = fingerprint([path]), int(place * size)
    content[offset] ^= 1 << bit
    path.write_bytes(content)
    near_an_end = offset < _EDGE or offset >= size - _EDGE
    assert (fingerprint([path]) != seen) == near_an_end
    content[offset] ^= 1 << bit
    path.write_bytes(content)
    assert fingerprint([path]) == seen


def test_the_size_of_a_file_matters(tmp_path: Path) -> None:
    path = tmp_path / "train.beton"
    path.write_bytes(bytes(4 * _EDGE))
    seen = fingerprint([path])
    path.write_bytes(bytes(5 * _EDGE))
    assert fingerprint([path]) != seen


@pytest.mark.parametrize("name", ["train-000001.tar", "part-1.beton"])
def test_the_content_of_shards_in_a_folder_matters(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"one")
    seen = fingerprint([tmp_path])
    (tmp_path / name).write_bytes(b"two")
    assert fingerprint([tmp_path]) != seen


def test_a_byte_moved_to_the_next_file_is_noticed(tmp_path: Path) -> None:
    """A byte that moves from one file's end to the next one's start is a change."""
    first, second = tmp_path / "1.beton", tmp_path / "2.beton"
    first.write_bytes(b"ab")
    second.write_bytes(b"c")
    seen = fingerprint([first, second])
    first.write_bytes(b"a")
    second.write_bytes(b"bc")
    assert fingerprint([first, second]) != seen


def _write(path: Path) -> None:
    path.write_bytes(b"other")


def _append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def _replace(path: Path) -> None:
    """Replaced by a file of the same content, size and time: the run still maps the old one."""
    shutil.copy2(path, path.with_name("new"))
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [_write, _append, _replace, Path.touch, Path.unlink])
def test_a_file_that_changes_is_reported(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path, other = tmp_path / "train.beton", tmp_path / "val.beton"
    for file in (path, other):
        file.write_bytes(b"stored")
        os.utime(file, (1, 1))
    unchanged = Unchanged([other, path])
    path.read_bytes()
    unchanged.check()
    change(path)
    with pytest.raises(InputError, match=rf"{path} was changed or replaced .* --resume auto"):
        unchanged.check()


def test_files_in_a_folder_may_change_but_not_the_folder(photos: Path) -> None:
    unchanged = Unchanged([photos])
    (photos / "a" / "1.jpg").write_bytes(b"mended")
    unchanged.check()
    photos.rename(photos.with_name("old"))
    shutil.copytree(photos.with_name("old"), photos)
    with pytest.raises(InputError, match="was changed or replaced"):
        unchanged.check()

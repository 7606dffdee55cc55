"""Image folders against torchvision's ImageFolder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from fixres.pipelines.sources import open_source
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.spec import BadSampleError, InputError, Source
from tests.coded import coded_image, jpeg


def test_order_labels_and_bytes_are_imagefolders(tmp_path: Path) -> None:
    data = jpeg(coded_image(16, 16))
    for name in ("b/2.jpg", "b/10.JPEG", "b/deep/er/1.png", "b/Z.webp", "a b/ü.jpg", "B/x.tiff", "a/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data + name.encode())
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "list.jpg").write_bytes(data)
    (tmp_path / "linked").symlink_to(tmp_path / "a b", target_is_directory=True)
    source, reference = open_source(tmp_path), ImageFolder(str(tmp_path))
    assert isinstance(source, FolderSource) and isinstance(source, Source)
    assert list(source.classes) == reference.classes == ["B", "a", "a b", "b", "linked"]
    assert [(source.name(i), int(source.labels[i])) for i in range(len(source))] == reference.samples
    for i, (file, _) in enumerate(reference.samples):
        assert source.read(i) == Path(file).read_bytes()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "has no class folders"),
        (["a/1.jpg", "b/notes.txt"], r"/b holds no images \(1 of 2"),
        (["train/a/1.jpg", "val/a/1.jpg"], "holds the splits train, val; give one of them, such as .*/train"),
    ],
)
def test_wrong_folders_are_reported(made: list[str], message: str, tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message) as caught:
        open_source(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_links_to_a_parent_folder_are_reported(tmp_path: Path) -> None:
    """torchvision lists the images of such a folder forty times."""
    for name in ("a/deep/er/1.jpg", "b/2.jpg", "other/deep/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(jpeg(coded_image(16, 16)))
    (tmp_path / "b" / "aside").symlink_to(tmp_path / "other" / "deep", target_is_directory=True)
    assert len(FolderSource(tmp_path)) == 4  # a link to elsewhere is followed
    for target in (tmp_path / "a" / "deep", tmp_path):
        (tmp_path / "a" / "deep" / "er" / "up").symlink_to(target, target_is_directory=True)
        with pytest.raises(InputError, match="/a/deep/er/up links to a folder"):
            FolderSource(tmp_path)
        (tmp_path / "a" / "deep" / "er" / "up").unlink()
    (tmp_path / "a" / "across").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a", target_is_directory=True)
    with pytest.raises(InputError, match="/a/across/back links to a folder"):
        FolderSource(tmp_path)


@pytest.mark.parametrize("link", ["c", "a/more", "a/deep/er/2", "b/notes.txt"])
@pytest.mark.parametrize("target", ["gone", "a/1.jpg/inside", "itself"])
def test_broken_links_are_reported(link: str, target: str, tmp_path: Path) -> None:
    """torchvision skips such a class, and all later labels differ by one."""
    for name in ("a/1.jpg", "a/deep/er/1.jpg", "b/2.jpg", "d/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(coded_image(16, 16)))
    (tmp_path / link).symlink_to(tmp_path / (link if target == "itself" else target))
    for opened in (open_source, FolderSource):
        with pytest.raises(InputError, match=f"{link} is a link to .*, which does not exist; restore") as caught:
            opened(tmp_path)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_broken_link_of_a_numbered_class_is_reported(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "1.jpg").write_bytes(b"x")
    assert open_source(tmp_path).classes[2] == "10"
    (tmp_path / "12").symlink_to(tmp_path / "gone")
    for kind in ("auto", "imagenet_v2"):
        with pytest.raises(InputError, match="/12 is a link to"):
            open_source(tmp_path, kind)


def test_links_outside_the_class_folders_are_ignored(tmp_path: Path) -> None:
    """Only the class folders are read; a file next to them may be a link, too."""
    for name in ("data/a/1.jpg", "list.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "data" / "list.txt").symlink_to(tmp_path / "list.txt")
    (tmp_path / "data" / "a" / "linked.jpg").symlink_to("1.jpg")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    assert len(FolderSource(tmp_path / "data")) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["a", "a/secret"])
def test_folders_without_permission_are_reported(closed: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "secret").mkdir(parents=True)
    for name in ("a/1.jpg", "a/secret/2.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / closed).chmod(0)
    try:
        with pytest.raises(PermissionError, match=closed):
            FolderSource(tmp_path)
    finally:
        (tmp_path / closed).chmod(0o700)


def test_a_folder_that_cannot_be_read_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.jpg", "a/secret/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(coded_image(16, 16)))
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may read everything, so permissions cannot be used
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="secret"):
        FolderSource(tmp_path)


def test_missing_path_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nowhere is not a folder"):
        FolderSource(tmp_path / "nowhere")


def test_two_classes_named_like_splits_are_classes(tmp_path: Path) -> None:
    for name in ("test", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    assert open_source(tmp_path).classes == ("test", "train")


def test_file_that_vanishes_is_a_bad_sample(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"x")
    source = open_source(tmp_path)
    os.unlink(tmp_path / "a" / "1.jpg")
    with pytest.raises(BadSampleError, match=r"1\.jpg: cannot be read \(No such file"):
        source.read(0)

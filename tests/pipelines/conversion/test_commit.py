"""The last moments of a conversion, a source that is replaced, two writers of one name, and links in their way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fixres.config.parsing import save_recipe
from fixres.config.recipe import Recipe
from fixres.pipelines.conversion.converter import Conversion, convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.webdataset_writer import ShardWriter, write_shards
from fixres.pipelines.runtime import atomic_files, locks
from fixres.pipelines.runtime.atomic_files import atomic_file, atomic_folder
from fixres.pipelines.sources import open_source
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.spec import InputError, Source
from tests.coded import coded_image, jpeg, write_coded_folder
from tests.pipelines.loaders.loading import CLASSES, encoded

FORMATS = ("ffcv", "webdataset")
NUM = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coded_folder(tmp_path / "images", [(40 + i, 60) for i in range(NUM)])


def run(source: Source | Path, target: Path, format: str = "ffcv", **options: object) -> Conversion:
    return convert(source, target, ConversionConfig(format, num_workers=0, progress=False, **options))


class Killed(BaseException):
    """Stands for a SIGKILL: nothing below may clean up after it."""


def killed_after_the_rename(folder: Path, target: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves what a process leaves that is killed between `os.replace` and the removal of the journal."""
    journal = target.with_name(f".{target.name}.journal")

    def put_in_place(partial: Path, final: Path) -> None:
        real(partial, final)
        if final == target:
            kept.append(journal.read_bytes())
            raise Killed

    kept, real = [], atomic_files.put_in_place
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(atomic_files, "put_in_place", put_in_place)
        run(folder, target, format)
    assert target.exists() and journal.read_bytes() == kept[0]
    shutil.rmtree(target.with_name(f".{target.name}.partial"), ignore_errors=True)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"overwrite": True, "restart": None}])
@pytest.mark.parametrize("format", FORMATS)
def test_a_finished_file_with_a_journal_is_recognized(
    format: str, options: dict[str, object], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`overwrite` and `restart=None` are what a training run gives that converts its folder first."""
    target = tmp_path / "out" / "x"
    killed_after_the_rename(folder, target, format, monkeypatch)
    made = target.stat()
    done = run(folder, target, format, **options)
    assert (done.num_samples, done.num_kept) == (NUM, NUM)
    assert target.stat() == made and os.listdir(target.parent) == ["x"]
    assert len(open_source(target)) == NUM


def test_a_journal_without_data_is_of_no_use(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out" / "x"
    killed_after_the_rename(folder, target, "ffcv", monkeypatch)
    with pytest.raises(InputError, match="x exists; replace it with --overwrite"):
        run(folder, target, quality=70)
    done = run(folder, target, quality=70, overwrite=True)
    assert (done.num_samples, done.num_kept) == (NUM, 0)
    killed_after_the_rename(folder, tmp_path / "out" / "y", "ffcv", monkeypatch)
    (tmp_path / "out" / "y").unlink()
    assert run(folder, tmp_path / "out" / "y").num_kept == 0


def interrupted(source: Path, target: Path, after: int) -> None:
    class Interrupting(FolderSource):
        def read(self, index: int) -> bytes:
            if index == after:
                raise KeyboardInterrupt
            return super().read(index)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupting(source), target)


@pytest.mark.parametrize(("number", "kept"), [(0, 0), (5, 5), (20, 16)])
def test_a_replaced_image_is_converted_again(number: int, kept: int, folder: Path, tmp_path: Path) -> None:
    """Also if its size is the same."""
    target, file = tmp_path / "x", FolderSource(folder).files[number]
    interrupted(folder, target, 17)
    before, content = os.stat(file), jpeg(coded_image(50, 70, 3))
    Path(file).write_bytes(content.ljust(before.st_size, b"\0")[: max(before.st_size, len(content))])
    done = run(folder, target)
    assert (done.num_kept, done.num_samples) == (kept, NUM)
    run(folder, tmp_path / "again")
    assert target.read_bytes() == (tmp_path / "again").read_bytes()
    assert BetonReader(target).sizes[number].tolist() == [50, 70]


def test_a_replaced_archive_is_refused(tmp_path: Path) -> None:
    shards, target = tmp_path / "shards", tmp_path / "x"
    write_shards(shards, encoded([(40, 50)] * NUM), CLASSES, samples_per_shard=9)

    class Interrupting(type(open_source(shards))):
        def read(self, index: int) -> bytes:
            if index == 17:
                raise KeyboardInterrupt
            return super().read(index)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupting(shards), target)
    os.utime(shards / "shard-000000.tar")
    with pytest.raises(InputError, match=r"sizes or times of the source's files, which were replaced .* --restart"):
        run(open_source(shards), target)
    assert run(open_source(shards), target, restart=True).num_samples == NUM


@pytest.mark.parametrize(("held", "other"), [(atomic_file, "webdataset"), (atomic_folder, "ffcv")])
def test_a_second_format_does_not_touch_what_another_process_writes(
    held: object, other: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.acquire, "__defaults__", (0.2,))
    with held(tmp_path / "x") as partial:
        inside = partial / "file" if partial.is_dir() else partial
        inside.write_text("half of it")
        with pytest.raises(InputError, match=r"another process is writing .*x; wait"):
            run(folder, tmp_path / "x", other)
        assert inside.read_text() == "half of it"


@pytest.mark.parametrize("format", FORMATS)
def test_links_are_not_followed(format: str, folder: Path, tmp_path: Path) -> None:
    """In a folder that others may write to, a link under a name of ours must not lead to a file of the user."""
    target, secret = tmp_path / "out" / "x", tmp_path / "secret"
    target.parent.mkdir()
    secret.write_text("keep me")
    (target.parent / ".x.partial").symlink_to(secret)
    (folder / "class_00" / "bad.jpg").write_text("no image")
    (target.parent / "x.bad.txt").symlink_to(secret)
    run(folder, target, format, on_bad="skip")
    assert secret.read_text() == "keep me" and not (target.parent / "x.bad.txt").is_symlink()
    (target.parent / "recipe.yaml").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        save_recipe(Recipe(), target.parent / "recipe.yaml")
    (tmp_path / "shards").mkdir()
    with ShardWriter(tmp_path / "shards", CLASSES) as writer, pytest.raises(OSError, match="symbolic links"):
        (tmp_path / "shards" / "shard-000000.tar").symlink_to(secret)
        writer.write(encoded([(40, 50)])[0])
    (target.parent / ".y.journal.new").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        run(folder, target.with_name("y"), format)
    assert secret.read_text() == "keep me"

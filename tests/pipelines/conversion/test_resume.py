"""An interrupted conversion that is continued gives the same bytes as an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.conversion import journal as journal_module
from fixres.pipelines.conversion.converter import Conversion, convert
from fixres.pipelines.conversion.journal import Journal
from fixres.pipelines.conversion.task import ConversionConfig, stamp
from fixres.pipelines.formats import webdataset_writer as webdataset
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.samples import Entry
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg

FORMATS = ("ffcv", "roc", "webdataset")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 different files in three classes; some images need scaling, and two files are not images."""
    root = tmp_path_factory.mktemp("images")
    for i in range(240):
        (root / f"class{i // 80}").mkdir(exist_ok=True)
        size = (300, 200 + i) if i % 3 else (64 + i, 90)
        (root / f"class{i // 80}" / f"{i:03d}.jpg").write_bytes(jpeg(coded_image(*size, code=i % 6)))
    for i in (33, 170):
        (root / f"class{i // 80}" / f"{i:03d}.jpg").write_text("no image")
    return root


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(webdataset, "SAMPLES_PER_SHARD", 20)
    monkeypatch.setattr(webdataset.num_in_whole_shards, "__defaults__", (20,))
    defaults = list(webdataset.ShardWriter.__init__.__defaults__)
    monkeypatch.setattr(webdataset.ShardWriter.__init__, "__defaults__", (20, *defaults[1:]))


def digest(path: Path) -> str:
    """Digest of a file, or of names and content of all files in a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(
        b"".join(file.name.encode() + file.read_bytes() for file in sorted(path.iterdir()))
    ).hexdigest()


def run(source: Path | FolderSource, target: Path, format: str, **options: object) -> Conversion:
    options = {"max_side": 150, "on_bad": "skip", "num_workers": 2, "progress": False} | options
    return convert(source, target, ConversionConfig(format, **options))


def start(source: FolderSource, target: Path, format: str) -> int:
    """Runs the same in a forked process; returns its id."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.modules.pop("nvidia.dali", None)  # an earlier test's; its server for workers belongs to the parent
            run(source, target, format)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def entries_in(target: Path) -> int:
    journal = target.with_name(f".{target.name}.journal")
    try:
        return journal.read_text().count("\n") - 1
    except FileNotFoundError:  # not begun, or finished a moment ago
        return 0


class Slow(FolderSource):
    """Reads slowly, so that the kills come before the end."""

    def read(self, index: int) -> bytes:
        time.sleep(0.01)
        return super().read(index)


@pytest.mark.parametrize(("format", "num_kills"), [("roc", 20), ("ffcv", 10), ("webdataset", 10)])
def test_killed_at_random_moments(format: str, num_kills: int, folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "undisturbed", format)
    target, random, progress = tmp_path / "x", np.random.default_rng(4), []
    for _ in range(num_kills):
        wanted = entries_in(target) + int(random.integers(0, 50))
        pid = start(Slow(folder), target, format)
        give_up = time.monotonic() + 3
        while entries_in(target) < wanted and not target.exists() and time.monotonic() < give_up:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if target.exists():  # already finished: restart
            assert digest(target) == digest(tmp_path / "undisturbed")
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        progress.append(entries_in(target))
    done = run(folder, target, format)
    assert done.num_kept <= progress[-1] and (format == "webdataset" or done.num_kept == progress[-1])
    assert digest(target) == digest(tmp_path / "undisturbed")
    assert len(set(progress)) > 5, "the kills all came before anything was kept, and prove nothing"
    assert not list(tmp_path.glob(".x.*"))


def interrupted(folder: Path, target: Path, format: str, after: int) -> None:
    """Converts until sample `after` is read, and is interrupted there."""

    class Interrupting(FolderSource):
        def read(self, index: int) -> bytes:
            if index == after:
                raise KeyboardInterrupt
            return super().read(index)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupting(folder), target, format, num_workers=0)


def test_an_interrupted_conversion_keeps_finished_samples_and_says_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(folder, tmp_path / "x", "ffcv", 100)
    assert "95 of 240 samples are kept; run the same command again to continue" in caplog.text
    done = run(folder, tmp_path / "x", "ffcv")
    assert (done.num_kept, done.num_samples, len(done.bad_samples)) == (96, 238, 2)
    run(folder, tmp_path / "y", "ffcv")
    assert digest(tmp_path / "x") == digest(tmp_path / "y")


def test_other_options_are_refused_or_restart(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "x"
    interrupted(folder, target, "ffcv", 100)
    with pytest.raises(InputError, match=r"\.x\.journal belongs to .* quality=90 instead of 80; .* --restart"):
        run(folder, target, "ffcv", quality=80)
    assert entries_in(target) == 96
    assert run(folder, target, "ffcv", quality=80, restart=True).num_kept == 0
    target.unlink()
    interrupted(folder, target, "ffcv", 100)
    assert run(folder, target, "ffcv", quality=80, restart=None).num_kept == 0
    target.unlink()
    interrupted(folder, target, "ffcv", 100)
    assert run(folder, target, "ffcv", restart=None).num_kept == 96


def test_another_format_with_the_same_target(folder: Path, tmp_path: Path) -> None:
    interrupted(folder, tmp_path / "x", "ffcv", 100)
    with pytest.raises(InputError, match=r"\.x\.partial is unfinished data of another format; .* --restart"):
        run(folder, tmp_path / "x", "webdataset")
    assert entries_in(tmp_path / "x") == 96 and (tmp_path / ".x.partial").stat().st_size > 10_000
    run(folder, tmp_path / "x", "webdataset", restart=True)
    run(folder, tmp_path / "y", "webdataset")
    assert digest(tmp_path / "x") == digest(tmp_path / "y")


def test_a_changed_source_is_refused(folder: Path, tmp_path: Path) -> None:
    interrupted(folder, tmp_path / "x", "ffcv", 100)
    fewer = FolderSource(folder)
    fewer.files, fewer.labels = fewer.files[1:], fewer.labels[1:]
    with pytest.raises(InputError, match="belongs to a conversion of other files or classes: some were added, removed"):
        run(fewer, tmp_path / "x", "ffcv")


def test_a_full_disk_keeps_finished_samples(folder: Path, tmp_path: Path) -> None:
    """The kernel refuses to write, in the middle of the image data."""
    run(folder, tmp_path / "undisturbed", "roc", num_workers=0)
    target, pid = tmp_path / "x", os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.modules.pop("nvidia.dali", None)  # an earlier test's; its server for workers belongs to the parent
            resource.setrlimit(resource.RLIMIT_FSIZE, ((8 << 20) + 100_000, -1))
            run(folder, target, "roc", num_workers=0)
        except OSError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    kept = entries_in(target)
    assert 0 < kept < 240
    assert run(folder, target, "roc").num_kept == kept
    assert digest(target) == digest(tmp_path / "undisturbed")


def test_a_source_that_disappears_is_not_a_list_of_bad_samples(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.symlink_to(folder)
    source = FolderSource(copy)

    class Vanishing(FolderSource):
        def read(self, index: int) -> bytes:
            if index == 100:
                copy.unlink()
            return super().read(index)

    with pytest.raises(InputError, match=r"copy no longer exists; restore it and run the same command again"):
        run(Vanishing(copy), tmp_path / "x", "ffcv", num_workers=0)
    assert 0 < entries_in(tmp_path / "x") <= 100
    copy.symlink_to(folder)
    assert len(run(source, tmp_path / "x", "ffcv").bad_samples) == 2


def test_repaired_samples_are_written_in_order(folder: Path, tmp_path: Path) -> None:
    """After "stop" and a repair, the conversion continues at the first bad sample."""
    images = tmp_path / "images"
    for file in sorted(folder.rglob("*.jpg")):
        (images / file.parent.name).mkdir(parents=True, exist_ok=True)
        (images / file.parent.name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="2 of 240 samples cannot be used"):
        run(images, tmp_path / "x", "ffcv", on_bad="stop")
    for i in (33, 170):
        (images / f"class{i // 80}" / f"{i:03d}.jpg").write_bytes(jpeg(coded_image(80, 90)))
    done = run(images, tmp_path / "x", "ffcv", on_bad="stop")
    assert (done.num_kept, done.num_samples, done.bad_samples) == (33, 240, [])
    run(images, tmp_path / "y", "ffcv", on_bad="stop")
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert not (tmp_path / "x.bad.txt").exists()


def test_skip_after_a_stop_converts_nothing_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 of 240 samples cannot be used"):
        run(folder, tmp_path / "x", "ffcv", on_bad="stop")
    assert run(folder, tmp_path / "x", "ffcv").num_kept == 240
    assert len(BetonReader(tmp_path / "x")) == 238


def test_an_incomplete_line_is_ignored_and_a_damaged_line_is_named(tmp_path: Path) -> None:
    path, header = tmp_path / "j", {"a": 1}
    entry = Entry(3, 1, 20, 30, True, (5, 6), "")
    journal = Journal(path, header, restart=False)
    journal.start([entry])
    journal.add(entry._replace(index=4))
    journal.checkpoint(lambda: None)
    journal.close()
    whole = path.read_text()
    path.write_text(whole[:-7])
    assert Journal(path, header, restart=False).entries == [entry]
    path.write_text(whole.replace("[3,", "{3,"))
    with pytest.raises(InputError, match="j: line 2 is damaged"):
        Journal(path, header, restart=False)
    for damaged in (b"7", b"[3, 1, 20, 30, true, 5, 6]", b"\xff\xfe"):
        path.write_bytes(whole.splitlines()[0].encode() + b"\n" + damaged + b"\n")
        with pytest.raises(InputError, match="j: line 2 is damaged"):
            Journal(path, header, restart=False)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="j is not the journal of a conversion"):
        Journal(path, header, restart=False)
    path.write_text("nonsense\n")
    with pytest.raises(InputError, match="j is not the journal of a conversion"):
        Journal(path, header, restart=False)
    assert json.loads(whole.splitlines()[0]) == header


def test_the_text_of_a_journal_is_pinned(folder: Path, tmp_path: Path) -> None:
    """Other versions continue it: the header, then a line for each sample."""
    interrupted(folder, tmp_path / "x", "ffcv", 100)
    lines = (tmp_path / ".x.journal").read_text().splitlines()
    names = ["version", "format", "max_side", "quality", "exif", "damaged", "part", "source", "files", "encoder"]
    header = json.loads(lines[0])
    assert list(header) == names and header["version"] == 3 and header["part"] == {"number": 0, "count": 1}
    assert header["files"] == []
    stamps = [stamp(FolderSource(folder), index) for index in range(2)]
    small, large = len(jpeg(coded_image(64, 90))), json.loads(lines[2])[5][0]
    assert lines[1] == f'[0, 0, 64, 90, true, [{small}], "", {stamps[0]}]'
    assert lines[2] == f'[1, 0, 150, 100, false, [{large}], "", {stamps[1]}]'
    assert lines[34].startswith('[33, 0, 0, 0, false, [], "')


def test_data_shorter_than_its_journal_is_noticed(folder: Path, tmp_path: Path) -> None:
    interrupted(folder, tmp_path / "x", "ffcv", 100)
    with open(tmp_path / ".x.partial", "r+b") as file:
        file.truncate((8 << 20) + 100)
    with pytest.raises(InputError, match=r"\.x\.partial is shorter than its journal says; remove it"):
        run(folder, tmp_path / "x", "ffcv", restart=None)  # as in a training run, which has no option for it
    (tmp_path / ".x.partial").unlink()
    assert run(folder, tmp_path / "x", "ffcv").num_kept == 0
    interrupted(folder, tmp_path / "y", "webdataset", 200)
    (tmp_path / ".y.partial" / "shard-000000.idx").unlink()
    with pytest.raises(InputError, match=r"shard-000000.idx does not exist, but its journal counts it; remove"):
        run(folder, tmp_path / "y", "webdataset")
    shutil.rmtree(tmp_path / ".y.partial")
    assert run(folder, tmp_path / "y", "webdataset").num_kept == 0

"""`fixres index`: counts, resumed and shared work, renamed files, rewritten progressive files."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fixres.cli.commands.index import parse, run
from fixres.pipelines.crop_index import checkpoints
from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.crop_index.journal import journals_of
from fixres.pipelines.crop_index.location import NAME
from fixres.pipelines.formats.parts import Part
from fixres.pipelines.sources import open_folder, open_source
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import BadSampleError, InputError
from tests.pipelines.crop_index.made import NUM_JPEGS as NUM
from tests.pipelines.crop_index.made import jpeg, kill_builders

QUIET = IndexingConfig(2, progress=False)


def test_the_command_prints_what_is_indexed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(parse([str(folder)]))
    assert (folder / NAME).is_file()
    reasons = "2 (15.4 %) are decoded whole: 1 not a JPEG file, 1 progressive; "
    assert f"{folder / NAME}: {NUM - 1} of {NUM + 1} images indexed; {reasons}" in capsys.readouterr().out
    run(parse([str(folder)]))
    assert f"{NUM + 1} were known before" in capsys.readouterr().out
    before = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(before[:100])
    with pytest.raises(InputError, match=r"the index is damaged, make it again: fixres index \S+data --overwrite"):
        run(parse([str(folder)]))
    run(parse([str(folder), "--overwrite"]))
    assert (folder / NAME).read_bytes() == before


def test_splits_are_indexed_one_by_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder.with_name("both")
    for split in ("train", "val"):
        (root / split / "cat").mkdir(parents=True)
        (root / split / "cat" / "a.jpg").write_bytes(jpeg(1))
    run(parse([str(root)]))
    assert capsys.readouterr().out.count("1 of 1 images indexed") == 2
    assert (root / "train" / NAME).exists() and (root / "val" / NAME).exists()


def test_parts_of_several_processes_give_the_same_index(folder: Path) -> None:
    source = open_folder(folder)
    whole = build_index(source, QUIET)
    undisturbed = whole.path.read_bytes()
    whole.path.unlink()
    for number in (2, 0, 1):
        build_index(source, IndexingConfig(1, part=Part(number, 3), progress=False))
    assert whole.path.read_bytes() == undisturbed and not journals_of(whole.path)


def test_a_file_that_is_gone_is_removed_from_the_index(folder: Path) -> None:
    undisturbed = build_index(open_folder(folder), QUIET).path.read_bytes()
    moved = folder / "class0" / "0.jpg"
    moved.rename(folder / "class1" / "moved.jpg")
    done = build_index(open_folder(folder), QUIET)
    assert done.num_kept == NUM and done.num_indexed + sum(done.decoded_whole.values()) == NUM + 1
    assert b"class0/0.jpg" not in done.path.read_bytes()
    (folder / "class1" / "moved.jpg").rename(moved)
    build_index(open_folder(folder), QUIET)
    assert [len(done.path.read_bytes()), moved.read_bytes()] == [len(undisturbed), jpeg(0)]


def test_an_unreadable_file_is_listed(folder: Path) -> None:
    source = open_folder(folder)
    Path(source.files[3]).unlink()
    done = build_index(source, QUIET)
    (line,) = done.bad_samples
    assert done.report is not None and done.report.read_text() == f"{line}\n"
    shard = build_index(source, IndexingConfig(1, part=Part(0, 2), progress=False)).report
    assert shard == folder / f"{NAME}.bad-00000-of-00002.txt"
    assert source.files[3] in line and done.num_indexed + sum(done.decoded_whole.values()) == NUM


def test_a_killed_command_is_continued(folder: Path) -> None:
    undisturbed = build_index(open_folder(folder), QUIET).path.read_bytes()
    rng = np.random.default_rng(0)
    for moment in range(6):
        (folder / NAME).unlink()
        kill_builders(folder, IndexingConfig(1, progress=False), rng.uniform(0, 0.04))
        assert build_index(open_folder(folder), QUIET).path.read_bytes() == undisturbed, moment
        assert not journals_of(folder / NAME)


def test_parquet_rows_are_indexed(tmp_path: Path) -> None:
    images = [jpeg(k) for k in range(5)]
    pq.write_table(arrow.table({"image": images, "label": [0, 1, 0, 1, 0]}), tmp_path / "a.parquet", row_group_size=2)
    done = build_index(open_source(tmp_path / "a.parquet"), QUIET)
    assert done.path == tmp_path / f".a.parquet{NAME}" and done.num_indexed == 5
    assert build_index(open_source(tmp_path / "a.parquet"), QUIET).num_kept == 5


def test_progressive_files_are_rewritten_losslessly(folder: Path, tmp_path: Path) -> None:
    dest = tmp_path / "baseline"
    run(parse([str(folder), "--rewrite-progressive", str(dest)]))
    (copy,) = [path for path in dest.rglob("*") if path.is_file()]
    original = folder / copy.relative_to(dest)
    assert copy.name == "5.jpg" and checkpoints.scan(copy.read_bytes()).sample[checkpoints.KIND] == checkpoints.INDEXED
    assert checkpoints.scan(original.read_bytes()).sample[checkpoints.KIND] == checkpoints.PROGRESSIVE
    with Image.open(io.BytesIO(original.read_bytes())) as one, Image.open(copy) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other)) and one.quantization == other.quantization
    with pytest.raises(InputError, match="inside"):
        run(parse([str(folder), "--rewrite-progressive", str(folder / "x")]))


def test_copies_replace_no_files_and_lie_outside_the_images(folder: Path, tmp_path: Path) -> None:
    def rewrite(data: Path, dest: Path) -> None:
        run(parse([str(data), "--rewrite-progressive", str(dest)]))

    root, dest = folder.rename(tmp_path / "train").parent, tmp_path / "new"
    rewrite(root / "train", dest)
    (copy,) = dest.rglob("*.jpg")
    written = copy.stat().st_mtime_ns
    rewrite(root / "train", dest)
    assert copy.stat().st_mtime_ns == written
    copy.write_bytes(b"mine")
    with pytest.raises(InputError, match=rf"{copy} exists"):
        rewrite(root / "train", dest)
    assert copy.read_bytes() == b"mine"
    data, file = tmp_path / "plain", tmp_path / "file"
    (data / "train" / "cat").mkdir(parents=True)
    (data / "train" / "cat" / "a.jpg").write_bytes(jpeg(1))
    file.write_bytes(b"mine")
    for dest, line in ((data / "x", "is inside"), (file, "is a file")):
        with pytest.raises(InputError, match=line):
            rewrite(data, dest)  # has nothing to be rewritten
    assert not (data / "train" / NAME).exists()


def test_options_that_would_lose_work_or_start_too_many_threads_are_refused(folder: Path) -> None:
    place = build_index(open_folder(folder), IndexingConfig(1, part=Part(0, 2), progress=False)).path
    before = place.read_bytes()
    for options, line in (
        (["--shard", "1/2", "--overwrite"], "overwrite would remove what the other parts"),
        (["--overwrite", "--num-workers", "1000000000"], "num_workers=1000000000 must be at most 1024"),
        (["--overwrite", "--num-workers", "-1"], "must not be negative"),
        (["--shard", "0/0"], "part 0/0: the number of parts must be from 1"),
    ):
        with pytest.raises(InputError, match=line):
            run(parse([str(folder), *options]))
    assert place.read_bytes() == before


def test_errors_of_the_command_say_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left"):  # ends with exit code 3
        build_index(open_folder(folder), QUIET)
    monkeypatch.undo()
    assert "scanned again" not in capfd.readouterr().err
    monkeypatch.setattr(checkpoints, "scan_batch", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="the same command without --overwrite continues"):
        run(parse([str(folder), "--num-workers", "1", "--overwrite"]))
    monkeypatch.undo()
    monkeypatch.setattr(FilesSource, "read", _fail)
    report = folder / f"{NAME}.bad.txt"
    line = f"{NUM + 1} images cannot be read: bad 0; bad 1; .*bad 9; and {NUM - 9} more, see {report}$"
    with pytest.raises(InputError, match=line):
        run(parse([str(folder)]))
    assert report.read_text().splitlines() == [f"bad {index}" for index in range(NUM + 1)]
    monkeypatch.undo()
    assert build_index(open_folder(folder), QUIET).report is None and not report.exists()


def _fail(_source: FilesSource, index: int) -> bytes:
    raise BadSampleError(f"bad {index}", index)


def test_overwriting_says_that_coarse_levels_are_removed(folder: Path, capfd) -> None:
    build_index(open_folder(folder), IndexingConfig(1, progress=False, coarse=True))
    levels = folder / f"{NAME}-coarse"
    levels.touch()
    build_index(open_folder(folder), IndexingConfig(1, progress=False, overwrite=True))
    line = f"{levels}: the coarse levels are removed, too; fixres index {folder} --coarse makes them again"
    assert line in capfd.readouterr().err and not levels.exists()

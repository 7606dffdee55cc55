"""Conversion: results, order, and errors."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats import beton_writer
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.images.codec import decode_rgb, image_size
from fixres.pipelines.runtime import atomic_files, locks
from fixres.pipelines.runtime.atomic_files import atomic_file, atomic_folder, resumable
from fixres.pipelines.runtime.locks import acquire
from fixres.pipelines.sources import open_source
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg, read_box, write_coded_folder

ROOT = Path(__file__).parents[3]
FORMATS = ("ffcv", "webdataset")


@pytest.fixture
def damaged_folder(tmp_path: Path) -> Path:
    """Forty images in two classes; 3 (truncated) and 31 (text) are bad; shards have 31 before 3."""
    folder = write_coded_folder(tmp_path / "damaged", [(40, 50)] * 40)
    source = FolderSource(folder)
    Path(source.name(3)).write_bytes(source.read(3)[:-300])
    Path(source.name(31)).write_text("no image")
    return folder


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("format", FORMATS)
def test_jpegs_that_fit_are_copied_byte_for_byte(
    format: str, num_workers: int, coded_folder: Path, tmp_path: Path
) -> None:
    done = convert(coded_folder, tmp_path / "x", ConversionConfig(format, num_workers=num_workers, progress=False))
    source, stored = open_source(coded_folder), open_source(tmp_path / "x")
    assert stored.classes == source.classes and stored.labels.tolist() == source.labels.tolist()
    assert [stored.read(i) for i in range(len(stored))] == [source.read(i) for i in range(len(source))]
    assert (done.num_samples, done.num_passed, done.bad_samples) == (24, 24, [])
    assert done.bytes_written == sum(len(source.read(i)) for i in range(24))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_shards_are_shuffled_and_reproducible(coded_folder: Path, tmp_path: Path) -> None:
    for name, num_workers in (("a", 0), ("b", 2)):
        convert(coded_folder, tmp_path / name, ConversionConfig("webdataset", num_workers=num_workers, progress=False))
    shard = (tmp_path / "a" / "shard-000000.tar").read_bytes()
    assert shard == (tmp_path / "b" / "shard-000000.tar").read_bytes()
    lines = (tmp_path / "a" / "shard-000000.idx").read_text().splitlines()[1:]
    written = [int(line.split()[3].split(".")[0]) for line in lines]
    assert sorted(written) == list(range(24)) != written
    assert len({number < 12 for number in written[:6]}) == 2  # both classes right at the start


@pytest.mark.parametrize("format", FORMATS)
def test_all_kinds_become_jpegs_that_fit(format: str, tmp_path: Path) -> None:
    big, folder = coded_image(600, 900, 2), tmp_path / "in" / "only"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(jpeg(big))
    Image.fromarray(big).save(folder / "1.png")
    Image.fromarray(big).convert("CMYK").save(folder / "2.jpg", quality=95)
    (folder / "3.jpg").write_bytes(jpeg(coded_image(100, 300, 2)))
    done = convert(
        tmp_path / "in",
        tmp_path / "x",
        ConversionConfig(format, max_side=300, quality=95, num_workers=0, progress=False),
    )
    stored = open_source(tmp_path / "x")
    assert (done.num_samples, done.num_passed) == (4, 1)
    assert [image_size(stored.read(i), "x") for i in range(4)] == [(200, 300)] * 3 + [(100, 300)]
    for i in range(3):
        with Image.open(io.BytesIO(stored.read(i))) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
        y, x, h, w, flip = read_box(decode_rgb(stored.read(i), "x")[:, :200], 600, 900)
        assert np.allclose([y, x, h, w], [0, 0, 600, 600], atol=4) and not flip
    if format == "ffcv":
        assert stored.sizes.tolist() == [[200, 300]] * 3 + [[100, 300]]


def test_converted_files_can_be_converted(coded_folder: Path, tmp_path: Path) -> None:
    convert(coded_folder, tmp_path / "a.beton", ConversionConfig("ffcv", num_workers=0, progress=False))
    convert(tmp_path / "a.beton", tmp_path / "b", ConversionConfig("webdataset", num_workers=2, progress=False))
    convert(tmp_path / "b", tmp_path / "c.beton", ConversionConfig("ffcv", num_workers=2, progress=False))
    assert (tmp_path / "c.beton").read_bytes() == (tmp_path / "a.beton").read_bytes()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("format", FORMATS)
def test_bad_samples_are_all_listed(format: str, num_workers: int, damaged_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        convert(damaged_folder, tmp_path / "x", ConversionConfig(format, num_workers=num_workers, progress=False))
    source, text = FolderSource(damaged_folder), str(caught.value)
    assert text.startswith(f"2 of 40 samples cannot be used, the first is {source.name(3)}: cannot be decoded")
    assert str(tmp_path / "x.bad.txt") in text and "\n" not in text
    lines = (tmp_path / "x.bad.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["3", "31"] and source.name(31) in lines[1]
    assert {path.name for path in tmp_path.iterdir()} == {".x.journal", ".x.partial", "damaged", "x.bad.txt"}


@pytest.mark.parametrize("format", FORMATS)
def test_bad_samples_can_be_left_out(format: str, damaged_folder: Path, tmp_path: Path) -> None:
    done = convert(
        damaged_folder, tmp_path / "x", ConversionConfig(format, num_workers=2, on_bad="skip", progress=False)
    )
    source, stored = FolderSource(damaged_folder), open_source(tmp_path / "x")
    good = [i for i in range(40) if i not in (3, 31)]
    assert done.num_samples == 38
    assert [line.split(":")[0] for line in done.bad_samples] == [source.name(3), source.name(31)]
    assert stored.labels.tolist() == source.labels[good].tolist()
    assert [stored.read(i) for i in range(38)] == [source.read(i) for i in good]
    assert len((tmp_path / "x.bad.txt").read_text().splitlines()) == 2


def test_damaged_samples_of_a_beton_file_are_not_kept(
    coded_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """libjpeg goes on after an error in the data of pixels; the segments of a RoC record do not fit any more."""
    quiet = {"num_workers": 0, "progress": False}
    for format in ("roc", "ffcv"):
        convert(coded_folder, tmp_path / f"{format}.beton", ConversionConfig(format, **quiet))
        reader = BetonReader(tmp_path / f"{format}.beton")
        start, size = map(int, reader.image_spans[1])
        data = bytearray(bytes(reader.data))
        data[start + int(0.6 * size) : start + int(0.6 * size) + 64] = np.random.default_rng(0).bytes(64)
        (tmp_path / f"{format}.beton").write_bytes(data)
    capsys.readouterr()
    with pytest.raises(InputError, match=r"1 of .* the first is .*roc.beton: sample 1: its RoC record is damaged"):
        convert(tmp_path / "roc.beton", tmp_path / "x.beton", ConversionConfig("ffcv", **quiet))
    assert "no checksum" not in capsys.readouterr().err
    with suppress(InputError):
        convert(tmp_path / "ffcv.beton", tmp_path / "y.beton", ConversionConfig("ffcv", **quiet))
    assert "ffcv.beton: its images have no checksum, so damage that still decodes is not" in capsys.readouterr().err


def test_the_report_of_an_earlier_attempt_is_removed(damaged_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        convert(damaged_folder, tmp_path / "x", ConversionConfig("ffcv", num_workers=0, progress=False))
    for number in (3, 31):
        Path(FolderSource(damaged_folder).name(number)).write_bytes(jpeg(coded_image(40, 50)))
    convert(damaged_folder, tmp_path / "x", ConversionConfig("ffcv", num_workers=0, progress=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "x"]


def test_only_bad_samples_are_an_error_even_with_skip(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "1.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 1 samples cannot be used, the first is .*the file is empty"):
        convert(tmp_path / "in", tmp_path / "x", ConversionConfig("ffcv", on_bad="skip", progress=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "zip"}, "format='zip' must be 'roc', 'ffcv' or 'webdataset'"),
        ({"on_bad": "ignore"}, "on_bad='ignore' must be 'stop' or 'skip'"),
        ({"max_side": 1}, "max_side=1 must be 8 to 65500"),
        ({"quality": 0}, "quality=0 must be 1 to 100"),
        ({"num_workers": -1}, "num_workers=-1 must not be negative"),
        ({"source": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_wrong_options_are_named(change: dict[str, object], message: str, coded_folder: Path, tmp_path: Path) -> None:
    options = {"format": "ffcv", "progress": False} | change
    source = options.pop("source", coded_folder)
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "x", ConversionConfig(**options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_an_existing_target_is_kept_without_overwrite(format: str, coded_folder: Path, tmp_path: Path) -> None:
    convert(coded_folder, tmp_path / "x", ConversionConfig(format, num_workers=0, progress=False))
    kept = open_source(tmp_path / "x").read(0)
    with pytest.raises(InputError, match="x exists; replace it with --overwrite"):
        convert(coded_folder, tmp_path / "x", ConversionConfig(format, num_workers=0, progress=False))
    assert open_source(tmp_path / "x").read(0) == kept
    convert(
        coded_folder,
        tmp_path / "x",
        ConversionConfig(format, max_side=50, num_workers=0, overwrite=True, progress=False),
    )
    assert open_source(tmp_path / "x").read(0) != kept


@pytest.mark.parametrize("format", FORMATS)
def test_the_source_is_never_overwritten(format: str, coded_folder: Path, tmp_path: Path) -> None:
    """Overwriting a folder removes its content, which may be the images to convert."""
    shutil.copytree(coded_folder, tmp_path / "data" / "train")
    convert(coded_folder, tmp_path / "data" / "x", ConversionConfig(format, num_workers=0, progress=False))
    (tmp_path / "link").symlink_to(tmp_path / "data" / "train", target_is_directory=True)
    classes = tmp_path / "data" / "train"
    before = sorted(file for file in (tmp_path / "data").rglob("*") if file.is_file())
    pairs = [("data/train", "data/train"), ("data/train", "data"), ("link", "data/train"), ("data/x", "data/x")]
    for source, dest in pairs:
        for opened in (tmp_path / source, open_source(tmp_path / source, classes_from=classes)):
            with pytest.raises(InputError, match="would be lost"):
                convert(
                    opened, tmp_path / dest, ConversionConfig(format, num_workers=0, overwrite=True, progress=False)
                )
    assert sorted(file for file in (tmp_path / "data").rglob("*") if file.is_file()) == before
    convert(
        tmp_path / "data" / "train",
        tmp_path / "data" / "train" / "inside",
        ConversionConfig(format, num_workers=0, progress=False),
    )


def test_two_runs_cannot_write_the_same_target(
    coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.acquire, "__defaults__", (0.2,))
    for format, held in (("ffcv", atomic_file), ("webdataset", atomic_folder)):
        with held(tmp_path / "x", overwrite=True):
            with pytest.raises(InputError, match=r"another process is writing .*x; wait"):
                convert(
                    coded_folder,
                    tmp_path / "x",
                    ConversionConfig(format, num_workers=0, overwrite=True, progress=False),
                )
        (tmp_path / "x").unlink() if format == "ffcv" else None


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_waited_for_another_does_not_overwrite_its_result(
    format: str, coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run begins before the first result is renamed, and gets the lock after that."""
    waiting, target = threading.Event(), tmp_path / "x"
    config = ConversionConfig(format, num_workers=0, progress=False)
    monkeypatch.setattr(atomic_files, "acquire", lambda descriptor: waiting.set() or acquire(descriptor))
    convert(coded_folder, tmp_path / "first", config)
    with ThreadPoolExecutor(1) as pool:
        with resumable(target, folder=format == "webdataset") as unfinished:
            waiting.clear()
            second = pool.submit(convert, coded_folder, target, config)
            assert waiting.wait(5)
            copy = shutil.copytree if format == "webdataset" else shutil.copy
            copy(tmp_path / "first", unfinished.data, **({"dirs_exist_ok": True} if format == "webdataset" else {}))
        made = target.stat().st_ino
        with pytest.raises(InputError, match=r"another process was writing .*x until now"):
            second.result()
    assert target.stat().st_ino == made and len(open_source(target)) == len(open_source(coded_folder))
    assert not list(tmp_path.glob(".*"))


class Deadly(FolderSource):
    """Kills the worker that reads sample 20, as the kernel does when memory runs out."""

    def read(self, index: int) -> bytes:
        if index == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def test_a_dead_worker_is_reported_in_one_line(coded_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a worker process died"):
        convert(Deadly(coded_folder), tmp_path / "x", ConversionConfig("ffcv", num_workers=2, progress=False))
    assert not (tmp_path / "x").exists()


def test_lost_blocks_are_noticed_before_the_file_gets_its_name(
    coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(path: Path) -> BetonReader:
        with open(path, "r+b") as file:
            file.seek(BetonReader(path).image_spans[0, 0])
            file.write(bytes(4096))
        return BetonReader(path)

    monkeypatch.setattr(beton_writer, "BetonReader", lose)
    with pytest.raises(InputError, match="sample 0: cannot be decoded"):
        convert(coded_folder, tmp_path / "x", ConversionConfig("ffcv", num_workers=0, progress=False))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_reported_with_the_target(
    format: str, coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError) as caught:
        convert(coded_folder, tmp_path / "x", ConversionConfig(format, num_workers=2, progress=False))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []

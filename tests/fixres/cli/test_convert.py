"""The converter's command line: kinds, splits, class lists and errors."""

from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path

import pytest

from fixres.cli.main import call as call_command
from fixres.pipelines.conversion.presets import PRESETS
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources import open_source
from tests.coded import coded_image, jpeg, write_coded_folder
from tests.pipelines.sources import miniatures as mini
from tests.pipelines.sources.miniatures import SYNSETS, contents, expected


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Runs the command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["fixres convert", *map(str, arguments)])
    try:
        run(lambda: call_command("convert", sys.argv[1:]))
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_official_archives_become_training_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train, val = mini.train_photos(), mini.val_photos()
    some = {key: data for key, data in val.items() if key[0] != SYNSETS[3]}
    mini.write_ilsvrc(tmp_path / "x", train, some)
    # A val archive without a class: its images' numbers have gaps, so labels come as pairs.
    (tmp_path / "labels.txt").write_text("".join(f"{name} {synset}\n" for synset, name in some))
    options = ["--format", "ffcv", "--num-workers", 0]
    done = tmp_path / "done"
    assert call(monkeypatch, tmp_path / "x", done / "train.beton", "--split", "train", *options) == 0
    assert "24 images of 12 classes, 0 = n01440764 (tench, Tinca tinca) to 11 = n15075141" in capsys.readouterr().out
    extra = ["--val-labels", tmp_path / "labels.txt", "--classes-from", done / "train.beton"]
    assert call(monkeypatch, tmp_path / "x", done / "val.beton", "--split", "val", *options, *extra) == 0
    assert "22 images of 12 classes" in capsys.readouterr().out
    assert contents(open_source(done, split="train")) == expected(train)
    assert contents(open_source(done, split="val")) == expected(some)
    assert open_source(done, split="val").classes == SYNSETS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "choose one with --split"),
        (["--split", "val", "--source-kind", "parquet"], "holds no .parquet files"),
        (["--split", "dev"], "split=dev must be 'train' or 'val'"),
        (["--split", "train", "--classes-from", "/nowhere"], "/nowhere does not exist"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    mini.write_ilsvrc(tmp_path / "x", mini.train_photos(), mini.val_photos())
    assert call(monkeypatch, tmp_path / "x", tmp_path / "y.beton", "--format", "ffcv", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "y.beton").exists()


def test_devices_and_files_as_folders_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "/dev/null", tmp_path / "y.beton", "--format", "roc") == 2
    assert "/dev/null is neither a file nor a folder" in capsys.readouterr().err
    folder = write_coded_folder(tmp_path / "photos", [(20, 30), (30, 20)])
    (tmp_path / "file").write_text("no folder")
    assert call(monkeypatch, folder, tmp_path / "file" / "y.beton", "--format", "roc") == 2
    assert "file is a file, not a folder" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.beton"))


def test_the_size_printed_is_that_of_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_coded_folder(tmp_path / "photos", [(20, 30), (30, 20)], num_classes=1)
    for format, dest in (("ffcv", tmp_path / "x.beton"), ("webdataset", tmp_path / "shards")):
        assert call(monkeypatch, folder, dest, "--format", format, "--num-workers", 0, "--verify") == 0
        printed = capsys.readouterr().out
        files = list(dest.iterdir()) if dest.is_dir() else [dest]
        assert f"{dest}: 2 images, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB" in printed
        assert "MB on disk, the rest is padding" in printed or format == "webdataset"
        assert (
            f"{folder}: 2 images of 1 class, 0 = " in printed
            and "without damage; 1 class with 2 to 2 images" in printed
        )
        assert "1 classes" not in printed


def test_other_files_are_called_what_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    packed = mini.tar_bytes({"a": b"x"})
    for data, kind in (
        (jpeg(coded_image(20, 30)), "a JPEG image"),
        (gzip.compress(packed), "a gzip archive"),
        (b"PAR1" + bytes(900), "a parquet file"),
        (b"\0\0\0\x24ftypheic", r"an image of a phone (HEIC, AVIF) or a video"),
        (packed, "a tar archive"),
    ):
        (tmp_path / "x.beton").write_bytes(data)
        assert call(monkeypatch, tmp_path / "x.beton", tmp_path / "y.beton") == 2
        assert f"x.beton is {kind}, not a .beton file; give a .beton file, or a folder" in capsys.readouterr().err


def test_undecodable_names_are_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As escapes; in most locales Python cannot print them otherwise."""
    folder = tmp_path / "photos" / os.fsdecode(b"caf\xe9")
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(jpeg(coded_image(20, 30)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True))
    options = ("--format", "ffcv", "--num-workers", 0, "--verify")
    assert call(monkeypatch, tmp_path / "photos", tmp_path / os.fsdecode(b"d\xe9.beton"), *options) == 0
    printed = sys.stdout.buffer.getvalue()
    assert rb"caf\udce9" in printed and rb"d\udce9.beton: 1 image without damage" in printed


def test_an_existing_target_is_refused_before_the_source_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "data.beton"
    target.write_bytes(b"other")
    assert call(monkeypatch, tmp_path / "nowhere", target) == 2
    error = capsys.readouterr().err
    assert f"{target} exists; replace it with --overwrite" in error and "nowhere" not in error
    assert target.read_bytes() == b"other"


def test_nothing_is_said_to_be_kept_if_no_image_can_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "photos/a").mkdir(parents=True)
    (tmp_path / "photos/a/broken.jpg").write_bytes(b"no photograph")
    assert call(monkeypatch, tmp_path / "photos", tmp_path / "data.beton", "--num-workers", 0) == 2
    error = capsys.readouterr().err
    assert "1 of 1 samples cannot be used" in error and "are kept" not in error


def test_presets_set_what_options_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_coded_folder(tmp_path / "photos", [(340, 520), (520, 340)])
    for name, options in {
        "large": [],
        "small": ["--preset", "small"],
        "mixed": ["--preset", "small", "--quality", 70],
        "named": ["--preset", "medium", "--max-side", 64, "--quality", 70],
    }.items():
        dest = tmp_path / f"{name}.beton"
        assert call(monkeypatch, folder, dest, "--num-workers", 0, *options) == 0
    assert [max(open_source(tmp_path / f"{name}.beton").sizes[0]) for name in ("large", "small", "mixed", "named")] == [
        500, 320, 320, 64,
    ]  # fmt: skip
    shown = capsys.readouterr().out
    for line in ("500 px, quality 90", "320 px, quality 85", "320 px, quality 70", "64 px, quality 70"):
        assert f" at most {line}, 0 copied unchanged" in shown
    assert call(monkeypatch, folder, tmp_path / "x.beton", "--preset", "tiny") == 2
    assert "preset=tiny must be 'small', 'medium' or 'large'" in capsys.readouterr().err


def test_help_shows_what_presets_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, preset in PRESETS.items():
        assert f"{name} {preset.max_side} px and {preset.quality}" in shown

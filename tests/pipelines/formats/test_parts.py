"""Parts of a conversion: read like one file, merged to the bytes of one process, refused if incomplete."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.cli.main import call
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.merging import merge, parts_beside
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats.beton_parts import BetonParts, open_beton
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.beton_writer import BetonWriter
from fixres.pipelines.formats.parts import Part, check_complete, part_of_name
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.sources import open_source
from fixres.pipelines.sources.folder import FolderSource
from fixres.pipelines.spec import EvalCrop, InputError, LoaderConfig, TrainCrop
from tests.coded import coded_image, jpeg, write_coded_folder
from tests.pipelines.formats.beton_files import CLASSES, samples

ROOT = Path(__file__).parents[3]
COUNT = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty files, one of which is not an image."""
    root = write_coded_folder(tmp_path_factory.mktemp("in") / "x", [(60 + i, 90) for i in range(40)])
    Path(FolderSource(root).name(20)).write_text("no image")
    return root


def make(folder: Path, dest: Path, format: str, **options: object) -> Path:
    return convert(folder, dest, ConversionConfig(format, num_workers=0, on_bad="skip", progress=False, **options)).dest


@pytest.fixture(scope="module", params=["roc", "ffcv", "webdataset"])
def made(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """The format, the parts, and the same data in one file."""
    place, ending = tmp_path_factory.mktemp(request.param), "" if request.param == "webdataset" else ".beton"
    whole = make(folder, place / "whole" / f"train{ending}", request.param)
    parts = [make(folder, place / f"train{ending}", request.param, part=Part(k, COUNT)) for k in range(COUNT)]
    return request.param, parts, whole


@given(st.integers(1, 50), st.integers(0, 2000))
def test_parts_cover_everything_once(count: int, num_samples: int) -> None:
    spans = [range(num_samples)[Part(number, count).span(num_samples)] for number in range(count)]
    assert [k for span in spans for k in span] == list(range(num_samples))
    assert max(map(len, spans)) - min(map(len, spans)) <= 1


def test_names(tmp_path: Path) -> None:
    part = Part.parse("3/8")
    assert part.place(tmp_path / "train.beton").name == "train-00003-of-00008.beton"
    assert part_of_name(part.place(tmp_path / "a-b.beton")) == ("a-b.beton", part)
    assert part_of_name(part.place(tmp_path / "shards")) == ("shards", part)
    assert part_of_name(tmp_path / "train.beton") is None and part_of_name(tmp_path / "x-00008-of-00008.beton") is None
    for text in ("8/8", "3", "a/b", "-1/3", "0/0"):
        with pytest.raises(InputError):
            Part.parse(text)


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path.iterdir() if path.is_dir() else [path])}


def test_merged_parts_equal_the_whole_byte_for_byte(made: tuple, tmp_path: Path) -> None:
    _, parts, whole = made
    assert merge(parts[::-1], tmp_path / whole.name, progress=False) == 39
    assert files_of(tmp_path / whole.name) == files_of(whole)
    assert parts_beside(parts[0].parent / whole.name) == parts


def test_parts_are_never_overwritten_by_their_merge(made: tuple) -> None:
    _, parts, _ = made
    before = [files_of(part) for part in parts]
    with pytest.raises(InputError, match="would be lost"):
        merge(parts, parts[1], overwrite=True, progress=False)
    assert [files_of(part) for part in parts] == before


def test_a_folder_of_parts_is_read_like_one_file(made: tuple) -> None:
    format, parts, whole = made
    if format == "webdataset":
        pytest.skip("shards are merged, or lie in one folder")
    joint, single = open_source(parts[0].parent), BetonReader(whole)
    assert isinstance(joint, BetonParts) and joint.classes == single.classes
    for name in ("labels", "sizes", "modes"):
        assert np.array_equal(getattr(joint, name), getattr(single, name))
    for index in range(39):
        assert joint.read(index) == single.read(index)
        start, size = joint.image_spans[index]
        assert joint.data[start : start + size].tobytes() == single.read(index)
    assert "train-00002-of-00003.beton: sample" in joint.name(38)


@pytest.mark.parametrize(
    ("engine", "crop"), [("roc", TrainCrop()), ("roc", EvalCrop()), ("torch", TrainCrop()), ("roc-dali", TrainCrop())]
)
def test_engines_give_the_same_crops(made: tuple, engine: str, crop: TrainCrop | EvalCrop) -> None:
    if engine == "roc-dali":
        pytest.importorskip("nvidia.dali")
    format, parts, whole = made
    if format != "roc":
        pytest.skip("one format is enough")
    batches = []
    for path in (whole, parts[0].parent):
        config = LoaderConfig(path, crop, 48, 8, shuffle=True, seed=5)
        with open_loader(engine, config) as loader:
            batches.append([tuple(np.array(part) for part in batch) for batch in loader])
    for one, other in zip(*batches, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_incomplete_or_mixed_parts_are_refused(made: tuple, folder: Path, tmp_path: Path) -> None:
    format, parts, whole = made
    with pytest.raises(InputError, match=r"part 1 of 3 is missing \(1 are\); convert it with --shard 1/3"):
        merge([parts[0], parts[2]], tmp_path / "x", progress=False)
    with pytest.raises(InputError, match=r"is not named like a part .*; rename it or give it alone"):
        check_complete([whole])
    other = make(folder, tmp_path / whole.name, format, part=Part(1, COUNT), quality=50)
    with pytest.raises(InputError, match="was made with other options than"):
        merge([parts[0], other, parts[2]], tmp_path / "y", progress=False)
    if format != "webdataset":
        (tmp_path / "few").mkdir()
        (tmp_path / "few" / parts[0].name).symlink_to(parts[0])
        with pytest.raises(InputError, match=r"part 1 of 3 is missing \(2 are\)"):
            open_beton(tmp_path / "few")
    assert not (tmp_path / "x").exists() and not (tmp_path / "y").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([1], "is damaged"),
        ({"source_samples": "40"}, "is damaged"),
        ({"source_samples": 10**18}, "cannot have had"),
        ({"source_samples": 3}, "cannot have had"),
        ({"number": 2}, "is part 2 of 3"),
        ({"count": [1]}, r"is part 0 of \[1\]"),
    ],
)
def test_parts_that_are_damaged_or_renamed_are_refused(changed: object, message: str, tmp_path: Path) -> None:
    files = []
    for k in range(COUNT):
        part = {"number": k, "count": COUNT, "source_samples": 4 * COUNT}
        part = part | changed if isinstance(changed, dict) else changed
        files.append(tmp_path / f"x-{k:05d}-of-{COUNT:05d}.beton")
        with BetonWriter(files[k], 4, CLASSES, about={"part": part}) as writer:
            for sample in samples(4):
                writer.write(sample)
            writer.finish()
    for use in (lambda: merge(files, tmp_path / "y", progress=False), lambda: open_beton(tmp_path)):
        if "cannot" not in message or use.__code__.co_names[0] == "merge":
            with pytest.raises(InputError, match=message):
                use()


@pytest.mark.parametrize("format", ["ffcv", "webdataset"])
def test_parts_before_and_after_an_image_was_replaced_are_refused(format: str, folder: Path, tmp_path: Path) -> None:
    dest = tmp_path / ("x.beton" if format == "ffcv" else "x")
    source = shutil.copytree(folder, tmp_path / "source")
    parts = [make(source, dest, format, part=Part(0, 2))]
    Path(FolderSource(source).name(3)).write_bytes(jpeg(coded_image(90, 90)))
    parts.append(make(source, dest, format, part=Part(1, 2)))
    with pytest.raises(InputError, match=r"x-00001-of-00002.* was made with other sizes of the source's files"):
        merge(parts, tmp_path / "y", progress=False)
    if format == "ffcv":
        with pytest.raises(InputError, match="other sizes of the source's files"):
            open_beton(tmp_path)
    parts[0] = make(source, dest, format, part=Part(0, 2), overwrite=True)
    assert merge(parts, tmp_path / "y", progress=False) == 39


def test_command_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for i in range(5):
        (tmp_path / "in" / "a" / f"{i}.jpg").write_bytes(jpeg(coded_image(50, 60)))
    for k in range(2):
        words = [tmp_path / "in", tmp_path / "x.beton", "--format", "roc", "--num-workers", 0, "--shard", f"{k}/2"]
        call("convert", list(map(str, words)))
        assert f"x-0000{k}-of-00002.beton" in capsys.readouterr().out
    call("merge", [str(tmp_path / "x.beton")])
    assert "5 images from 2 parts" in capsys.readouterr().out
    assert len(BetonReader(tmp_path / "x.beton")) == 5
    script = [sys.executable, "tools/merge_parts.py", str(tmp_path / "y.beton")]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no parts of" in done.stderr


def test_other_engines_ask_for_a_merge(made: tuple) -> None:
    format, parts, _ = made
    if format == "webdataset":
        pytest.skip("shards are merged, or lie in one folder")
    pytest.importorskip("nvidia.dali")
    with pytest.raises(
        InputError, match=r"holds .beton parts, which engine='dali' cannot read; join them: fixres merge"
    ):
        open_loader("dali", LoaderConfig(parts[0].parent, TrainCrop(), 48, 8))

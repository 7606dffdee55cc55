"""Webdataset shards: DALI's reader and indexer agree with ours; damaged shards end in one line."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.formats.webdataset_writer import write_shards
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import BadSampleError, InputError, Source
from tests.coded import coded_image, jpeg

CLASSES = ("cat", "dog", "küche")
SIZES = [(20 + 3 * i, 34 - 2 * i) for i in range(10)]
SHUFFLED = [7, 2, 9, 4, 0, 1, 8, 3, 6, 5]


def sample(i: int) -> EncodedSample:
    return EncodedSample(jpeg(coded_image(*SIZES[i], i)), *SIZES[i], i % 3, i)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Ten samples in shuffled order, in three shards of four, four and two."""
    assert write_shards(tmp_path / "shards", map(sample, SHUFFLED), CLASSES, samples_per_shard=4) == 10
    return tmp_path / "shards"


def test_the_source_restores_the_order(shards: Path) -> None:
    source = open_source(shards)
    assert isinstance(source, TarSource) and isinstance(source, Source)
    assert source.classes == CLASSES and len(source.shards) == 3
    assert source.labels.tolist() == [i % 3 for i in range(10)] and source.labels.dtype == np.int64
    assert [source.read(i) for i in range(10)] == [sample(i).image for i in range(10)]
    assert source.name(0) == f"{shards / 'shard-000001.tar'}: 000000000"
    assert source.positions(np.array([0, 9])).tolist() == [0, 9]


def test_members_have_webdatasets_names(shards: Path) -> None:
    with tarfile.open(shards / "shard-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar.getmembers()} == {(0, 0, 0, 0o644, "")}
    assert list(members)[:4] == ["000000007.jpg", "000000007.cls", "000000007.index", "000000002.jpg"]
    assert members["000000007.jpg"] == sample(7).image
    assert members["000000007.cls"] == b"1" and members["000000007.index"] == b"\7" + bytes(7)
    assert json.loads((shards / "classes.json").read_text()) == {"classes": list(CLASSES), "num_samples": 10}


def test_equal_samples_give_equal_bytes(shards: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "again", map(sample, SHUFFLED), CLASSES, samples_per_shard=4)
    files = sorted(path.name for path in shards.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((shards / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)


def test_the_index_equals_that_of_dalis_tool(shards: Path, tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx")
    for shard in shards.glob("*.tar"):
        with wds2idx.IndexCreator(str(shard), str(tmp_path / "x.idx"), verbose=False) as creator:
            creator.create_index()
        assert (tmp_path / "x.idx").read_text() == shard.with_suffix(".idx").read_text()


def test_dali_reads_them(shards: Path) -> None:
    dali = pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, types

    @dali.pipeline_def(batch_size=5, num_threads=1, device_id=None)
    def pipeline() -> tuple:
        encoded, label, number = fn.readers.webdataset(
            paths=[str(path) for path in sorted(shards.glob("*.tar"))],
            index_paths=[str(path) for path in sorted(shards.glob("*.idx"))],
            ext=["jpg", "cls", "index"],
            dtypes=[types.UINT8, types.UINT8, types.INT64],
            missing_component_behavior="error",
        )
        return fn.decoders.image(encoded), label, number

    pipe = pipeline()
    pipe.build()
    seen = []
    for _ in range(2):
        images, labels, numbers = pipe.run()
        for k in range(5):
            number = int(np.array(numbers[k])[0])
            seen.append(number)
            assert int(bytes(np.array(labels[k]))) == number % 3
            error = np.abs(np.array(images[k]).astype(int) - coded_image(*SIZES[number], number))
            assert error.max() <= 12
    assert seen == SHUFFLED


def test_numbers_with_gaps_keep_their_order(tmp_path: Path) -> None:
    write_shards(tmp_path / "x", map(sample, [8, 3, 5]), CLASSES)
    source = TarSource(tmp_path / "x")
    assert [source.read(i) for i in range(3)] == [sample(i).image for i in (3, 5, 8)]
    assert source.numbers.tolist() == [3, 5, 8] and source.positions(np.array([8, 3])).tolist() == [2, 0]


def write_tar(path: Path, members: dict[str, bytes], format: int = tarfile.GNU_FORMAT, mode: str = "w") -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode, format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_third_party_shards_without_index_or_classes(format: int, tmp_path: Path) -> None:
    long = "folder/" * 12 + "photo"
    write_tar(
        tmp_path / "x" / "b.tar",
        {"b/k.0.jpg": b"skipped", "b/k.cls": b"4\n", "b/k.png": b"P", "b/k.json": b"{}", f"{long}.cls": b"0"}
        | {f"{long}.JPEG": b"J", "b/._k.jpg": b"junk of macOS"},
        format,
    )
    write_tar(tmp_path / "x" / "a.tar", {"z.jpg": b"Z", "z.cls": b"02"}, format)
    source = open_source(tmp_path / "x")
    assert source.keys == ["z", "b/k", long] and source.labels.tolist() == [2, 4, 0]
    assert [source.read(i) for i in range(3)] == [b"Z", b"P", b"J"]
    assert source.classes == ("0", "1", "2", "3", "4") and source.numbers.tolist() == [0, 1, 2]


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text())) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "shard-000001.tar").unlink(), "holds 6 samples, but classes.json counts 10"),
        (edit("shard-000000.idx", lambda text: text[:-90]), "damaged line|not a complete index|outside|needs an image"),
        (edit("shard-000000.idx", lambda text: text.replace("jpg 512 ", "jpg -512 ")), "outside of the shard; remove"),
        (edit("shard-000000.idx", lambda text: text.replace("jpg 512 ", f"jpg {1 << 70} ")), "outside of the shard"),
        (edit("shard-000000.idx", lambda text: text.replace("jpg 512 ", "jpg x ")), "damaged line"),
        (edit("shard-000000.idx", lambda text: text.replace("v1.2", "v9.9")), "index of version v1.2"),
        (edit("shard-000000.idx", lambda text: text.replace("v1.2 4", "v1.2 5")), "not a complete index"),
        (edit("shard-000000.idx", lambda text: text.replace("jpg ", "txt ")), "needs an image"),
        (edit("shard-000000.idx", lambda text: text.replace("cls ", "cls 1", 1)), "not a class number|outside"),
        (edit("shard-000000.idx", lambda _: ""), "not a complete index"),
        (edit("classes.json", lambda _: "{"), "is not of the form"),
        (edit("classes.json", lambda _: "[1]"), "is not of the form"),
        (edit("classes.json", lambda _: '{"classes": [1, 2, 3]}'), "names 3 classes"),
        (edit("classes.json", lambda _: '{"classes": ["a", "b"]}'), "names 2 classes, but a sample has the label 2"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], None], message: str, shards: Path) -> None:
    damage(shards)
    with pytest.raises(InputError, match=message) as caught:
        TarSource(shards)
    assert str(shards) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "hold no samples"),
        ({"a.jpg": b"x"}, "needs an image"),
        ({"a.jpg": b"x", "a.cls": b"dog"}, "holds b'dog', not a class number"),
        ({"a.jpg": b"x", "a.cls": b"-1"}, "not a class number"),
        ({"a.jpg": b"x", "a.cls": b"999999999"}, "not a class number"),
    ],
)
def test_unusable_members_are_named(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "a.tar", members)
    with pytest.raises(InputError, match=message):
        TarSource(tmp_path / "x")


def test_a_compressed_tar_is_named(tmp_path: Path, shards: Path) -> None:
    write_tar(tmp_path / "x" / "a.tar", {"a.jpg": b"x", "a.cls": b"0"}, mode="w:gz")
    with pytest.raises(InputError, match=r"a\.tar: not a readable tar file .*unpacked"):
        TarSource(tmp_path / "x")
    with pytest.raises(InputError, match="one shard; give the folder"):
        open_source(shards / "shard-000000.tar")
    with pytest.raises(InputError, match=r"holds no \.tar shards"):
        TarSource(tmp_path)


def test_a_shard_that_shrinks_or_disappears_is_a_bad_sample(shards: Path) -> None:
    source = TarSource(shards)
    shard = shards / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(BadSampleError, match=r"shard-000000\.tar: 000000007: the archive has become shorter"):
        source.read(7)
    shard.unlink()
    with pytest.raises(BadSampleError, match="cannot be read"):
        source.read(7)


def test_an_existing_folder_is_kept_or_replaced(shards: Path) -> None:
    (shards / "shard-000099.tar").write_bytes(b"stale")
    with pytest.raises(InputError, match="exists"):
        write_shards(shards, map(sample, [0]), CLASSES)
    write_shards(shards, map(sample, [0]), CLASSES, overwrite=True)
    assert len(TarSource(shards)) == 1
    assert [path.name for path in shards.parent.iterdir()] == ["shards"]


def test_a_failure_leaves_no_files(tmp_path: Path) -> None:
    def some() -> object:
        yield sample(0)
        raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        write_shards(tmp_path / "x", some(), CLASSES, samples_per_shard=1)
    with pytest.raises(InputError, match="no samples"):
        write_shards(tmp_path / "x", [], CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "shard-000042.tar").write_bytes(b"stale")
    write_shards(tmp_path / "x", [sample(0)], CLASSES)
    assert len(TarSource(tmp_path / "x")) == 1
    shutil.rmtree(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []

"""Parquet shards: random reads with bounded memory, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

import fixres
from fixres.pipelines.imagenet_classes import human_names, imagenet_synsets
from fixres.pipelines.sources import open_source, parquet
from fixres.pipelines.sources.parquet import ParquetSource
from fixres.pipelines.spec import BadSampleError, InputError
from tests.pipelines.sources.miniatures import (
    NUMBERS,
    SYNSETS,
    Photos,
    contents,
    parquet_schema,
    photo,
    write_parquet,
)


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_source(path, **options)
    assert "\n" not in str(caught.value)


def stored(photos: Photos) -> list[tuple[str, bytes]]:
    return [(synset, data) for (synset, _), data in photos.items()]


@pytest.mark.parametrize("group", [1, 3, 100])
def test_rows_are_read_in_stored_order_and_at_random(group: int, train: Photos, tmp_path: Path) -> None:
    source = open_source(write_parquet(tmp_path / "x", train, "train", None, group=group))
    assert contents(source) == stored(train)
    for i in np.random.default_rng(0).permutation(len(train)):
        assert source.read(i) == stored(train)[i][1]
    assert source.name(8) == f"{tmp_path / 'x' / 'train-00001-of-00003.parquet'}: row 0"


def test_columns_can_be_named(train: Photos, tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "x", train, "train", None)
    for file in root.iterdir():
        table = pq.read_table(file)
        small = [{"bytes": b"small", "path": ""}] * len(table)
        columns = [table["image"], arrow.array(small, table["image"].type), table["label"]]
        pq.write_table(arrow.table(columns, ["img", "thumb", "fine_label"]), file, row_group_size=3)
    says = r"needs a column image .* label, but has fine_label \(int64\), img .*--image-column and --label-column"
    refused(root, says)
    refused(root, "needs a column img .* integer column label, but", image_column="img")
    refused(root, "needs a column nothing .* but has fine_label", image_column="nothing", label_column="fine_label")
    named = {"image_column": "img", "label_column": "fine_label"}
    assert [data for _, data in contents(open_source(root, **named))] == list(train.values())
    # The name of a sample is in the digest by which an interrupted conversion recognizes its source.
    other = open_source(root, image_column="thumb", label_column="fine_label")
    assert other.read(0) == b"small" and other.name(0) != open_source(root, **named).name(0)
    with pytest.raises(InputError, match="choose others with image_column and label_column"):
        fixres.convert(root, tmp_path / "x.beton")
    done = fixres.convert(root, tmp_path / "x.beton", "ffcv", **named, num_workers=0, progress=False)
    assert done.num_samples == len(train)
    (tmp_path / "f" / "a").mkdir(parents=True)
    (tmp_path / "f" / "a" / "1.jpg").write_bytes(photo(0))
    refused(tmp_path / "f", "is class folders, .* which have no columns; omit --image-column", image_column="img")


def test_hugging_faces_thousand_names_are_the_synsets(train: Photos, tmp_path: Path) -> None:
    names = ["tench, another wording", *human_names(imagenet_synsets())[1:]]
    source = open_source(write_parquet(tmp_path / "x", train, "train", names))
    assert contents(source) == stored(train) and source.classes == imagenet_synsets()
    assert source.class_names == tuple(names)


def test_a_thousand_other_names_are_kept(train: Photos, tmp_path: Path) -> None:
    names = [f"bird {k}" for k in range(1000)]
    source = open_source(write_parquet(tmp_path / "x", train, "train", names))
    assert source.classes == tuple(names) == source.class_names
    assert source.labels.tolist() == [NUMBERS[synset] for synset, _ in train]


def test_names_that_are_synsets_are_sorted_and_labels_follow(train: Photos, tmp_path: Path) -> None:
    names = list(SYNSETS[5:] + SYNSETS[:5])
    numbers = {synset: k for k, synset in enumerate(names)}
    source = open_source(write_parquet(tmp_path / "x", train, "train", names, numbers))
    assert source.classes == SYNSETS and contents(source) == stored(train)
    assert source.class_names[7] == "crane"


def test_fewer_than_a_thousand_numbers_stay_numbers(train: Photos, tmp_path: Path) -> None:
    numbers = {synset: k for k, synset in enumerate(SYNSETS)}
    source = open_source(write_parquet(tmp_path / "x", train, "train", None, numbers))
    assert source.classes == tuple(map(str, range(12)))


def test_splits_named_as_on_the_hub(train: Photos, val: Photos, tmp_path: Path) -> None:
    for split, photos in (("train", train), ("validation", val)):
        write_parquet(tmp_path / "x" / "data", photos, split, None)
    write_parquet(tmp_path / "x" / "data", val, "test", None, dict.fromkeys(SYNSETS, -1))
    assert contents(open_source(tmp_path / "x", split="val")) == stored(val)
    assert contents(open_source(tmp_path / "x" / "data", split="train")) == stored(train)
    refused(tmp_path / "x", r"several splits \(test, train, val\); choose one with --split")
    refused(tmp_path / "x", "the label -1 in every row", split="test")
    one = tmp_path / "x" / "data" / "train-00001-of-00003.parquet"
    alone = open_source(one)  # a named file may be one of three
    assert [alone.read(i) for i in range(len(alone))] == [data for _, data in stored(train)[8:16]]
    one.rename(tmp_path / "alone.parquet")
    refused(tmp_path / "alone.parquet", "has no shards of the split 'val', only no split", split="val")
    refused(tmp_path / "x", "holds 2 of 3 shards, number 00001 is missing", split="train")


def test_only_a_few_groups_are_kept_and_each_is_read_once_in_order(
    train: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(write_parquet(tmp_path / "x", train, "train", None, group=4))
    opened: list[Path] = []
    whole = parquet._open
    monkeypatch.setattr(parquet, "_open", lambda path: opened.append(path) or whole(path))
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 0)
    assert [source.read(i) for i in range(24)] == [data for _, data in stored(train)]
    assert len(opened) == 6 and len(source._groups._kept) == 1
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 1 << 20)
    for i in (0, 23, 0, 23):
        source.read(i)
    assert len(opened) == 7


def write(path: Path, images: list, labels: list, schema: arrow.Schema | None = None, **options: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(arrow.table([images, labels], schema=schema or parquet_schema(None)), path, **options)
    return path


def test_rows_without_bytes_are_bad_samples(tmp_path: Path) -> None:
    images = [{"bytes": photo(0), "path": None}, {"bytes": None, "path": "/etc/passwd"}, None, {"bytes": b""}]
    source = open_source(write(tmp_path / "x.parquet", images, [0, 0, 0, 0]))
    assert source.read(0) == photo(0)
    for row in (1, 2, 3):
        with pytest.raises(BadSampleError, match=rf"x\.parquet: row {row}: holds no image bytes") as caught:
            source.read(row)
        assert caught.value.index == row


def test_plain_bytes_and_small_integers_are_read(tmp_path: Path) -> None:
    schema = arrow.schema([("image", arrow.large_binary()), ("label", arrow.uint8())])
    source = open_source(write(tmp_path / "x.parquet", [photo(0), photo(1)], [1, 0], schema))
    assert contents(source) == [("1", photo(0)), ("0", photo(1))]


@pytest.mark.parametrize(
    ("schema", "images", "labels", "message"),
    [
        ([("img", arrow.binary()), ("label", arrow.int64())], [b"x"], [0], r"needs a column image .*img \(binary\)"),
        ([("image", arrow.string()), ("label", arrow.int64())], ["x"], [0], "needs a column image"),
        ([("image", arrow.struct([("path", arrow.string())])), ("label", arrow.int64())], [{}], [0], "needs a column"),
        ([("image", arrow.binary()), ("label", arrow.string())], [b"x"], ["dog"], "integer column label"),
        ([("image", arrow.binary()), ("text", arrow.int64())], [b"x"], [0], "integer column label"),
        ([("image", arrow.binary()), ("label", arrow.int64())], [b"x"], [None], "rows without a label: 1; remove them"),
        ([("image", arrow.binary()), ("label", arrow.int64())], [b"x", b"y"], [3, -1], "row 1 has the label -1"),
        ([("image", arrow.binary()), ("label", arrow.int64())], [b"x"], [1 << 40], "row 0 has the label 1099511627776"),
        ([("image", arrow.binary()), ("label", arrow.uint64())], [b"x"], [1 << 63], "row 0 has the label"),
        ([("image", arrow.binary()), ("label", arrow.int64())], [], [], "hold no rows"),
    ],
)
def test_wrong_columns_are_reported(schema: list, images: list, labels: list, message: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "x.parquet", images, labels, arrow.schema(schema)), message)


def test_labels_beyond_the_names_and_names_that_differ(train: Photos, tmp_path: Path) -> None:
    refused(write_parquet(tmp_path / "x", train, "train", ["a", "b"]), "of which 2 are named .20 of 24 rows")
    write(tmp_path / "y" / "a.parquet", [{"bytes": b"x"}], [0], parquet_schema(["a", "b"]))
    write(tmp_path / "y" / "b.parquet", [{"bytes": b"x"}], [0], parquet_schema(["b", "a"]))
    refused(tmp_path / "y", r"b\.parquet has other class names than .*a\.parquet")


@pytest.mark.parametrize(
    "metadata", ["{", "[]", json.dumps({"info": {"features": 3}}), "[" * 100_000, '{"info": null}']
)
def test_strange_metadata_is_ignored(metadata: str, tmp_path: Path) -> None:
    schema = parquet_schema(None).with_metadata({"huggingface": metadata})
    source = open_source(write(tmp_path / "x.parquet", [{"bytes": b"x"}], [1], schema))
    assert source.classes == ("0", "1")


def test_damaged_files_are_reported(train: Photos, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x", train, "train", None, num_shards=1) / "train-00000-of-00001.parquet"
    data = path.read_bytes()
    for damaged in (data[:-100], data[: len(data) // 2], b"", b"PAR1" + bytes(100), b"PAR1" + b"\xff" * 8 + b"PAR1"):
        path.write_bytes(damaged)
        refused(path, r"train-00000-of-00001\.parquet: not a readable parquet file")


def test_a_damaged_or_missing_group_is_a_bad_sample(train: Photos, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x", train, "train", None, num_shards=1) / "train-00000-of-00001.parquet"
    source = open_source(path)
    data = bytearray(path.read_bytes())
    data[4:40] = bytes(range(36))  # the first page's header
    path.write_bytes(data)
    with pytest.raises(BadSampleError, match=r"row 0: cannot be read"):
        source.read(0)
    assert source.read(23) == stored(train)[23][1]
    path.unlink()
    with pytest.raises(BadSampleError, match=r"row 9: cannot be read"):
        source.read(9)


def test_groups_too_large_for_memory_are_refused(
    train: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MAX_GROUP_BYTES", 100)
    refused(write_parquet(tmp_path / "x", train, "train", None), "row group 0 unpacks to .* smaller row groups")


def test_labels_are_read_without_the_images(train: Photos, tmp_path: Path) -> None:
    """A file whose image pages are all damaged still opens."""
    path = write_parquet(tmp_path / "x", train, "train", None, num_shards=1, group=100) / "train-00000-of-00001.parquet"
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)
    assert ParquetSource(path).labels.tolist() == [NUMBERS[synset] for synset, _ in train]

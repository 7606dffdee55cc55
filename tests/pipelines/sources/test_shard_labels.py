"""Labels in webdataset members: numbers, synsets, both, and everything that is neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixres.pipelines.formats.webdataset_labels import Label, parse_json, resolve
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.imagenet_classes import imagenet_synsets
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import InputError
from tests.pipelines.sources.miniatures import tar_bytes


def shard(folder: Path, members: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    packed = {name: data if isinstance(data, bytes) else json.dumps(data).encode() for name, data in members.items()}
    (folder / "a.tar").write_bytes(tar_bytes(packed))
    return folder


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "JPEG"])
@pytest.mark.parametrize("key", ["label", "cls"])
def test_endings_and_keys(ending: str, key: str, tmp_path: Path) -> None:
    source = open_source(shard(tmp_path / "x", {f"a.{ending}": b"A", "a.json": {key: 3, "width": 7}}))
    assert source.labels.tolist() == [3] and source.classes == ("0", "1", "2", "3") and source.read(0) == b"A"


def test_cls_has_priority_over_json(tmp_path: Path) -> None:
    members = {"a.json": {"label": 0}, "a.jpg": b"A", "a.cls": b"2"}
    assert open_source(shard(tmp_path / "x", members)).labels.tolist() == [2]


@pytest.mark.parametrize("key", ["synset", "wnid", "class_name"])
def test_synsets_are_numbered_in_sorted_order_despite_other_numbers(key: str) -> None:
    pairs = [("n02012849", 0), ("n01440764", 1), ("n02012849", 0)]
    labels = [parse_json(json.dumps({"label": n, key: s}).encode(), "x") for s, n in pairs]
    found = resolve(labels, "x")
    assert found.classes == ("n01440764", "n02012849") and found.labels.tolist() == [1, 0, 1]
    assert found.class_names == ("tench, Tinca tinca", "crane")


def test_synsets_with_imagenets_numbers_are_imagenet() -> None:
    found = resolve([Label(134, "n02012849"), Label(0, "n01440764")], "x")
    assert found.classes == imagenet_synsets() and found.labels.tolist() == [134, 0]


def test_human_names_are_not_synsets() -> None:
    assert parse_json(b'{"label": 1, "class_name": "tench"}', "x") == Label(1)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"A", "a.json": {"width": 3}}, "a.tar: a: its .json member has no class"),
        ({"a.jpg": b"A", "a.json": [1]}, "member has no class"),
        ({"a.jpg": b"A", "a.json": b"{"}, "its .json member is damaged"),
        ({"a.jpg": b"A", "a.json": b"\xff"}, "its .json member is damaged"),
        ({"a.jpg": b"A", "a.json": b"[" * 200_000}, "its .json member is damaged"),
        ({"a.jpg": b"A", "a.json": {"label": -1}}, "holds the label -1"),
        ({"a.jpg": b"A", "a.json": {"label": 1 << 40}}, "holds the label 1099511627776"),
        ({"a.jpg": b"A", "a.json": {"label": True}}, "member has no class"),
        ({"a.jpg": b"A", "a.json": {"label": 1.0}}, "member has no class"),
        ({"a.jpg": b"A", "a.json": {"label": 1, "cls": 2}}, "names two classes"),
        ({"a.jpg": b"A", "a.json": b" " * (2 << 20)}, "has 2097152 bytes, which is too long for a label"),
        (
            {"a.jpg": b"A", "a.cls": b"0", "b.jpg": b"B", "b.json": {"wnid": "n01440764"}},
            "some samples have a class number",
        ),
        ({"a.jpg": b"A"}, "needs an image .* and a member .cls or .json with its class, but has only .jpg$"),
        ({"a.jpg": b"A", "b.jpg": b"B", "a.cls": b"0", "b.cls": b"1"}, ": a: its members lie apart in the shard; pack"),
        ({"a.jpg": b"A", "a.cls": b"0", "b.jpg": b"B", "b.cls": b"1", "a.txt": b"x"}, ": a: its members lie apart"),
        ({"a.v2.jpg": b"A", "a.v2.cls": b"0"}, "has .v2.jpg: webdataset splits names at the first dot; remove"),
        ({"a.1.jpg": b"A", "a.1.cls": b"0", "a.2.jpg": b"A", "a.2.cls": b"0"}, "has .1.jpg: webdataset splits names"),
        ({"cat/a.jpg": b"A"}, "cat/a: needs .* only .jpg; if the shard is a tar of class folders, give the tar itself"),
    ],
)
def test_invalid_labels_are_reported(members: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_source(shard(tmp_path / "x", members))
    assert "\n" not in str(caught.value)


def test_duplicate_samples_and_members(tmp_path: Path) -> None:
    one, other = {"a.jpg": b"A", "a.cls": b"0"}, {"b.jpg": b"B", "b.cls": b"1"}
    end = 2 * 512  # of tar's end mark and its padding
    packed = [tar_bytes(members) for members in (one, other)]
    plain = [data[: 4 * 512] for data in packed]
    for number, order in enumerate(((0, 0), (0, 1, 0))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "x.tar").write_bytes(b"".join(plain[k] for k in order) + bytes(end))
        with pytest.raises(InputError, match=r"x\.tar: a: has two members of the same name"):
            TarSource(folder)
    (folder / "x.tar").write_bytes(plain[0] + plain[1] + bytes(end))
    assert TarSource(folder).keys == ["a", "b"]


def test_a_class_table_needs_numbers(tmp_path: Path) -> None:
    folder = shard(tmp_path / "x", {"a.jpg": b"A", "a.json": {"label": 1}})
    (folder / "classes.json").write_text('{"classes": ["dog", "cat"]}')
    assert TarSource(folder).classes == ("dog", "cat")
    shard(folder, {"a.jpg": b"A", "a.json": {"wnid": "n01440764"}})
    with pytest.raises(InputError, match="some samples have no class number; remove the table"):
        TarSource(folder)


def test_a_damaged_shard_is_not_read_as_a_short_one(tmp_path: Path) -> None:
    folder = shard(tmp_path / "x", {"a.jpg": b"A", "a.cls": b"0", "b.jpg": b"B", "b.cls": b"1"})
    data = bytearray((folder / "a.tar").read_bytes())
    data[2 * 1024 + 150] ^= 1
    (folder / "a.tar").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar: damaged at byte 2048"):
        TarSource(folder)
    (folder / "a.tar").write_bytes(data[:2048])
    with pytest.raises(InputError, match=r"a\.tar: truncated after 2048 bytes"):
        TarSource(folder)

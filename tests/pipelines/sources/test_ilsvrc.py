"""The official archives and every way in which they can be wrong or incomplete."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.pipelines.imagenet_classes import class_names_of
from fixres.pipelines.sources import open_source
from fixres.pipelines.sources.imagenet.ilsvrc import IlsvrcSource
from fixres.pipelines.spec import BadSampleError, InputError
from tests.pipelines.sources import miniatures as mini
from tests.pipelines.sources.miniatures import SYNSETS, Photos, contents, expected, tar_bytes

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


@pytest.fixture
def archives(train: Photos, val: Photos, tmp_path: Path) -> Path:
    return mini.write_ilsvrc(tmp_path / "x", train, val)


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_source(path, **options)
    assert "\n" not in str(caught.value)


def test_the_split_of_a_single_archive_is_recognized(archives: Path, train: Photos, val: Photos) -> None:
    assert contents(open_source(archives / TRAIN)) == expected(train)
    assert contents(open_source(archives / VAL, split="val")) == expected(val)
    (archives / TRAIN).rename(archives / "renamed.tar")
    assert contents(open_source(archives / "renamed.tar")) == expected(train)
    assert contents(open_source(archives, kind="ilsvrc")) == expected(val)


def test_samples_are_reported(archives: Path) -> None:
    assert open_source(archives / TRAIN).name(0) == f"{archives / TRAIN}: n01440764/n01440764_10.JPEG"


def test_splits_that_do_not_exist(archives: Path) -> None:
    refused(archives, "archives of train and val; choose one with --split")
    refused(archives, "no split 'test', only train, val", split="test")
    refused(archives / TRAIN, "no split 'val', only train", split="val")
    refused(archives / TRAIN, "omit --val-labels", val_labels=archives / VAL)
    (archives / "only").mkdir()
    with pytest.raises(InputError, match="holds neither ILSVRC2012_img_train"):
        IlsvrcSource(archives / "only")


def test_an_unpacked_devkit_is_used(archives: Path, val: Photos) -> None:
    with tarfile.open(archives / "ILSVRC2012_devkit_t12.tar.gz") as tar:
        tar.extractall(archives, filter="data")
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert contents(open_source(archives, split="val")) == expected(val)


@pytest.mark.parametrize("form", ["list", "pairs", "bare pairs", "kaggle"])
def test_labels_from_a_file(form: str, archives: Path, val: Photos) -> None:
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    in_order = sorted((name, synset) for synset, name in val)
    lines = {
        "list": [synset for _, synset in in_order],
        "pairs": [f"{name} {synset}" for synset, name in val],
        "bare pairs": [f"val/{name.removesuffix('.JPEG')}\t{synset}" for synset, name in val],
        "kaggle": ["ImageId,PredictionString", *(f"{n.removesuffix('.JPEG')},{s} 1 2 3 4 " for s, n in val)],
    }[form]
    (archives / "labels.txt").write_text("\n".join(lines) + "\n\n")
    assert contents(open_source(archives, split="val", val_labels=archives / "labels.txt")) == expected(val)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n01440764\n" * 23, "has 23 labels, but .*img_val.tar holds 24 images"),
        ("ILSVRC2012_val_00000001.JPEG n01440764\n", "no label of ILSVRC2012_val_0000"),
        ("n01440764\nILSVRC2012_val_00000001.JPEG n01440764\n", "line 2 has 2 words"),
        ("a b c\n", "line 1 has 3 words"),
        ("a.JPEG n01440764\na.JPEG n01443537\n", "gives a.JPEG the labels n01440764 and n01443537"),
        ("ImageId,PredictionString\nILSVRC2012_val_00000001,\n", "line 2 has no label"),
        ("", "is empty"),
        (b"\xff\xfe\xff", "not UTF-8 text"),
    ],
)
def test_wrong_label_files_are_reported(text: str | bytes, message: str, archives: Path) -> None:
    (archives / "labels.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(archives, message, split="val", val_labels=archives / "labels.txt")


def test_labels_of_missing_images_are_reported(archives: Path, val: Photos) -> None:
    lines = [f"{name} {synset}" for synset, name in val] + ["ILSVRC2012_val_00000025.JPEG n01440764"]
    (archives / "labels.txt").write_text("\n".join(lines))
    refused(archives, "_00000025 is missing there", split="val", val_labels=archives / "labels.txt")
    refused(archives, "nowhere is not a file", split="val", val_labels=archives / "nowhere")


def write_devkit(archives: Path, members: dict[str, bytes]) -> None:
    (archives / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(tar_bytes(members)))


def _change(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: {k: change(v) if k.endswith(name) else v for k, v in members.items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_change("truth.txt", lambda text: text[:-2]), "has 23 labels, but .* holds 24 images"),
        (_change("truth.txt", lambda text: b"999" + text[1:]), "gives ILSVRC2012_val_0000.* the ID '999"),
        (_change("meta.mat", lambda data: data[:300]), "meta.mat cannot be read"),
        (_change("meta.mat", lambda _: b"no matlab" * 99), "cannot be read .not a MATLAB 5 file"),
        (_change("meta.mat", lambda _: mini.mat_file([(1, "../../x", "", 0.0)])), "row that is not a synset"),
        (_change("meta.mat", lambda _: mini.mat_file([(1, s, "", 0.0) for s in SYNSETS])), "two synsets of ID 1"),
        (lambda members: {k: v for k, v in members.items() if "meta" not in k}, "holds no data/meta.mat"),
    ],
)
def test_wrong_devkits_are_reported(
    spoil: Callable[[dict[str, bytes]], dict[str, bytes]], message: str, archives: Path, val: Photos
) -> None:
    write_devkit(archives, spoil(mini.devkit_members(val)))
    refused(archives, message, split="val")


def test_missing_and_cut_devkit(archives: Path) -> None:
    devkit = archives / "ILSVRC2012_devkit_t12.tar.gz"
    devkit.write_bytes(devkit.read_bytes()[:-40])
    refused(archives, "devkit_t12.tar.gz is damaged", split="val")
    devkit.unlink()
    refused(archives, "has no labels: put ILSVRC2012_devkit_t12.tar.gz next to it, or .*--val-labels", split="val")


def test_a_missing_val_image_is_noticed(archives: Path, val: Photos) -> None:
    some = {name: data for (_, name), data in list(val.items())[1:]}
    (archives / VAL).write_bytes(tar_bytes(some))
    refused(archives, "has 24 labels, but .* holds 23 images", split="val")
    (archives / VAL).write_bytes(tar_bytes(some | {"ILSVRC2012_val_00000099.JPEG": b"x"}))
    refused(archives, "'ILSVRC2012_val_00000099' is not one of", split="val")


GOOD = tar_bytes({"n01440764_1.JPEG": b"1"})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../n01440764.tar": GOOD}, r"member '\.\./n01440764\.tar' is not a class tar"),
        ({"/etc/n01440764.tar": GOOD}, r"member '/?etc/n01440764\.tar' is not a class tar"),
        ({"...tar": GOOD}, r"member '\.\.\.tar' is not a class tar"),
        ({"a/n01440764.tar": GOOD}, "is not a class tar"),
        ({"a\nb.tar": GOOD}, "is not a class tar"),
        ({"n01440764.tar": GOOD, "photo.JPEG": b"x"}, "'photo.JPEG' is not a class tar"),
        ({"n01440764.tar": GOOD, "./n01440764.tar": GOOD}, "exists twice"),
        ({"n01440764.tar": GOOD, "n01443537.tar": tar_bytes({})}, "n01443537.tar: holds no images"),
        ({"n01440764.tar": tar_bytes({"a.JPEG": b"1", "b/a.JPEG": b"2"})}, "member 'b/a.JPEG' exists twice"),
        ({"n01440764.tar": tar_bytes({"a.txt": b"1"})}, "n01440764.tar: member 'a.txt' is not an image"),
        ({"n01440764.tar": GOOD[:700]}, "train.tar: n01440764.tar: .*truncated"),
    ],
)
def test_wrong_train_archives_are_reported(members: dict[str, bytes], message: str, archives: Path) -> None:
    (archives / TRAIN).write_bytes(tar_bytes(members))
    refused(archives, message, split="train")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_cut_archive_is_noticed(split: str, archives: Path) -> None:
    path = archives / {"train": TRAIN, "val": VAL}[split]
    data = path.read_bytes()
    for size in (len(data) // 2, len(data) // 3 // 512 * 512):
        path.write_bytes(data[:size])
        refused(archives, "truncated", split=split)


def test_spaces_unicode_and_litter(archives: Path) -> None:
    inner = tar_bytes({"._a b.JPEG": b"litter", "a b.JPEG": b"1", "ü/ñ 语.jpeg": b"2"})
    (archives / TRAIN).write_bytes(tar_bytes({".DS_Store": b"x", "._n1.tar": b"y", "große katze.tar": inner}))
    source = open_source(archives, split="train")
    assert contents(source) == [("große katze", b"1"), ("große katze", b"2")]
    assert source.name(1).endswith("große katze/ñ 语.jpeg") and class_names_of(source) == ("große katze",)


def test_an_archive_that_shrinks_or_vanishes_is_a_bad_sample(archives: Path) -> None:
    source = open_source(archives, split="train")
    data = (archives / TRAIN).read_bytes()
    (archives / TRAIN).write_bytes(data[:1000])
    with pytest.raises(BadSampleError, match=r"n15075141_9\.JPEG: the archive has become shorter") as caught:
        source.read(23)
    assert caught.value.index == 23
    (archives / TRAIN).unlink()
    with pytest.raises(BadSampleError, match="cannot be read"):
        source.read(0)


def test_a_gzip_bomb_is_refused(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.pipelines.sources.imagenet.devkit._MAX_BYTES", 1 << 20)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as file:
        file.write(bytes(2 << 20))
    (archives / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(buffer.getvalue())
    refused(archives, "unpacks to more than 1 MiB", split="val")

"""`fixres inspect`: its figures against those that the test counts, with Pillow and tarfile."""

from __future__ import annotations

import io
import json
import os
import statistics
import struct
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.cli.main import call as call_command
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats import beton_layout as layout
from fixres.pipelines.formats.beton_writer import BetonWriter, write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.inspection.contact_sheet import stored_images
from fixres.pipelines.inspection.facts import SIDE_EDGES, class_facts, histogram, inspect_source
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg, read_box
from tests.pipelines.loaders.loading import encoded

ROOT = Path(__file__).resolve().parents[3]
MAGIC = b"RoC1"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["fixres inspect", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace"))
    call_command("inspect", sys.argv[1:])


def printed() -> str:
    sys.stdout.flush()
    return sys.stdout.buffer.getvalue().decode()


def as_json(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> dict:
    call(monkeypatch, *arguments, "--json", "-")
    return json.loads(printed())


def expand(facts: dict) -> list[tuple[float, float, int]]:
    """A histogram as intervals with their counts, without empty ones."""
    edges = [-np.inf, *facts["edges"], np.inf]
    return [(edges[k], edges[k + 1], count) for k, count in enumerate(facts["counts"]) if count]


def check_images(facts: dict, sizes: list[tuple[int, int]], num_bytes: list[int]) -> None:
    """The facts about images against sizes (height, width) and bytes of each."""
    assert facts["num_looked_at"] == len(sizes)
    for name, values in (
        ("short_side", [min(size) for size in sizes]),
        ("long_side", [max(size) for size in sizes]),
        ("aspect", [w / h for h, w in sizes]),
    ):
        intervals = expand(facts[name])
        assert sum(count for *_, count in intervals) == len(sizes)
        for low, high, count in intervals:
            assert sum(low <= value < high for value in values) == count
    assert facts["mean_bytes"] == pytest.approx(statistics.mean(num_bytes))
    twentieths = statistics.quantiles(num_bytes, n=20, method="inclusive")
    assert (facts["p5_bytes"], facts["p95_bytes"]) == pytest.approx((twentieths[0], twentieths[-1]))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: 5 JPEG files in "a b", one in "c", two PNG files in "d"."""
    root = tmp_path_factory.mktemp("mixed")
    for i, name in enumerate(["a b/0", "a b/1", "a b/2", "a b/3", "a b/4", "c/5", "d/6", "d/7"]):
        (root / name).parent.mkdir(exist_ok=True)
        image = coded_image(100 + 40 * i, 300, i)
        if name.startswith("d"):
            Image.fromarray(image).save(root / f"{name}.png")
        else:
            (root / f"{name}.jpg").write_bytes(jpeg(image))
    return root


def test_the_text_says_what_the_checksum_covers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    (tmp_path / "photos" / "ant" / "1.jpg").write_bytes(jpeg(coded_image(16, 16)))
    convert(tmp_path / "photos", tmp_path / "x.beton", ConversionConfig("ffcv", num_workers=0, progress=False))
    call(monkeypatch, tmp_path / "x.beton")
    text = printed()
    assert "of tables and class names matches; it does not cover the images, which convert --verify decodes" in text
    assert "x.beton: FFCV .beton, 1 image, 1 class\n" in text
    call(monkeypatch, tmp_path / "photos" / "ant")
    assert "pictures without classes, 1 image, 1 class" in printed()


def test_folder(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = as_json(monkeypatch, mixed)
    assert (facts["kind"], facts["num_samples"], facts["checksum"], facts["roc"]) == ("image folder", 8, "absent", None)
    classes = facts["classes"]
    assert (classes["names"], classes["counts"]) == (["a b", "c", "d"], [5, 1, 2])
    assert (classes["smallest"], classes["largest"], classes["median_count"]) == ("c", "a b", 2)
    files = sorted(path for path in mixed.rglob("*") if path.is_file())
    sizes = [Image.open(file).size[::-1] for file in files]
    check_images(facts["images"], sizes, [file.stat().st_size for file in files])
    assert facts["images"]["format_shares"] == {"JPEG": 0.75, "PNG": 0.25}


def test_shards(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(mixed, tmp_path / "shards", ConversionConfig("webdataset", num_workers=0, progress=False))
    facts = as_json(monkeypatch, tmp_path / "shards")
    assert (facts["kind"], facts["num_samples"]) == ("webdataset shards", 8)
    with tarfile.open(tmp_path / "shards" / "shard-000000.tar") as tar:
        stored = [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]
    check_images(facts["images"], [Image.open(io.BytesIO(data)).size[::-1] for data in stored], list(map(len, stored)))
    assert facts["images"]["format_shares"] == {"JPEG": 1}


def test_ffcv_and_empty_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(40 + 9 * i, 250 - 10 * i) for i in range(9)]
    samples = encoded(sizes)
    write_beton(tmp_path / "x.beton", samples, 9, ("cat", "dog\n", "owl", "ape"))
    facts = as_json(monkeypatch, tmp_path / "x.beton")
    assert (facts["kind"], facts["checksum"], facts["roc"]) == ("FFCV .beton", "matches", None)
    assert facts["classes"]["counts"] == [5, 4, 0, 0] and facts["classes"]["empty"] == ["owl", "ape"]
    assert facts["classes"]["median_count"] == 2
    check_images(facts["images"], sizes, [len(sample.image) for sample in samples])
    assert facts["images"]["format_shares"] == {"JPEG": 1}
    call(monkeypatch, tmp_path / "x.beton")
    assert r"0 (owl) to 5 (cat) images a class, median 2; 2 without images: owl, ape" in printed()
    write_beton(tmp_path / "y.beton", samples, 9)  # without class names: as ffcv writes it, without a checksum
    assert as_json(monkeypatch, tmp_path / "y.beton")["checksum"] == "absent"


def test_ffcv_with_raw_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three images is raw, as ffcv's writer stores them: the mode of its metadata says so."""
    with BetonWriter(tmp_path / "x.beton", 3) as writer:
        for i in range(3):
            image = coded_image(20, 30, i)
            writer.write(EncodedSample(image.tobytes() if i == 1 else jpeg(image), 20, 30, 0, i))
        writer.finish()
    data = bytearray((tmp_path / "x.beton").read_bytes())
    data[layout.metadata_start(2) + layout.metadata_dtype([layout.TYPE_IMAGE, layout.TYPE_INT]).itemsize] = 1
    (tmp_path / "x.beton").write_bytes(data)
    facts = as_json(monkeypatch, tmp_path / "x.beton")
    assert facts["images"]["format_shares"] == pytest.approx({"JPEG": 2 / 3, "raw": 1 / 3})
    images, captions, bad = stored_images(open_source(tmp_path / "x.beton"), 3, 30)
    raw = images[captions.index("1 0")]
    assert bad == [] and np.array_equal(raw[5:25], coded_image(20, 30, 1))


def test_roc(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(mixed, path := tmp_path / "x.beton", ConversionConfig("roc", num_workers=0, progress=False))
    facts = as_json(monkeypatch, path)
    assert (facts["kind"], facts["checksum"]) == ("RoC .beton", "matches")
    reader = open_source(path)
    fields = [bytes(reader.field_bytes("roc", i)) for i in range(8)]
    images = [reader.read(i) for i in range(8)]
    total = sum(map(len, [*fields, *images]))
    check_images(
        facts["images"],
        [Image.open(io.BytesIO(data)).size[::-1] for data in images],
        [len(a) + len(b) for a, b in zip(fields, images, strict=True)],
    )
    # Coarse levels are the JPEG files within the fields; the layout is spelt out in pipelines/roc/layout.py.
    coarse = [struct.unpack_from("<I", field, 16 + 48 + 8)[0] if field[8] == 2 else 0 for field in fields]
    assert any(coarse) and not all(coarse)
    full, half = facts["roc"]["levels"]
    assert (full["shift"], full["sample_share"], half["shift"]) == (0, 1, 1)
    assert half["sample_share"] == pytest.approx(np.count_nonzero(coarse) / 8)
    assert full["byte_share"] == pytest.approx(sum(map(len, images)) / total)
    assert half["byte_share"] == pytest.approx(sum(coarse) / total)
    assert facts["roc"]["index_byte_share"] == pytest.approx((sum(map(len, fields)) - sum(coarse)) / total)
    call(monkeypatch, path)
    assert "level at 1/2 of the size: in " in printed()


def test_damaged_records_are_reported_and_fail(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(mixed, path := tmp_path / "x.beton", ConversionConfig("roc", num_workers=0, progress=False))
    offset = int(open_source(path).field_spans("roc")[3, 0])
    data = bytearray(path.read_bytes())
    assert data[offset : offset + 4] == MAGIC
    data[offset : offset + 4] = b"RoC0"
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"^1 of the samples looked at .* sample 3: its RoC record is damaged"
    ) as caught:
        call(monkeypatch, path)
    assert "1 samples cannot be used:" in printed() and "\n" not in str(caught.value)


def test_bad_images_are_reported_and_fail(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{k}.jpg").write_bytes(jpeg(coded_image(50, 60, k)) if k else b"<html>")
    with pytest.raises(InputError, match=r"1 of the samples looked at .*0\.jpg: .*web page"):
        call(monkeypatch, tmp_path)
    assert "image folder, 3 images" in printed()
    for k in (1, 2):
        (tmp_path / "a" / f"{k}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="all of 3 images looked at cannot be used"):
        call(monkeypatch, tmp_path)


def test_random_samples_are_the_same_each_time(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = (as_json(monkeypatch, mixed, "--num-images", 3) for _ in range(2))
    assert first == again and first["images"]["num_looked_at"] == 3 and first["num_samples"] == 8
    call(monkeypatch, mixed, "--num-images", 3)
    assert "3 random images" in printed()


def test_picture(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(mixed)
    images, captions, bad = stored_images(source, 5, 96)
    assert len(images) == 5 and bad == [] and len(set(captions)) == 5
    for image, caption in zip(images, captions, strict=True):
        index, name = caption.split(" ", 1)
        with Image.open(source.files[int(index)]) as stored:
            width, height = stored.size
        assert name == source.classes[source.labels[int(index)]]
        w, h = (round(side * 96 / max(width, height)) for side in (width, height))
        y, x = (96 - h) // 2, (96 - w) // 2
        inner = image[y : y + h, x : x + w]
        assert abs(int(np.median(inner[..., 2])) - (16 + 32 * int(index))) <= 3
        assert np.allclose(read_box(inner[:, :h] if w > h else inner[:w], height, width)[:2], 0, atol=12)
        outside = image.astype(int).sum() - inner.astype(int).sum()
        assert outside == 765 * (96 * 96 - w * h)
    call(monkeypatch, mixed, "--output", tmp_path / "x.png", "--num-drawn", 6, "--side", 64)
    with Image.open(tmp_path / "x.png") as sheet:
        pixels = np.asarray(sheet)
    rows = {tuple(image[32].ravel()) for image in stored_images(source, 6, 64)[0]}
    assert rows <= {tuple(line[x : x + 64].ravel()) for line in pixels for x in range(4, 4 + 6 * 68, 68)}


def test_a_bad_image_is_skipped_in_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for k in range(4):
        data = jpeg(coded_image(50, 60, k))
        (tmp_path / "a" / f"{k}.jpg").write_bytes(data if k else data[:500])
    images, captions, bad = stored_images(open_source(tmp_path), 4, 32)
    assert sorted(captions) == ["1 a", "2 a", "3 a"] and len(images) == 3
    assert len(bad) == 1 and "0.jpg: cannot be decoded" in bad[0]


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50))
def test_histogram_counts_half_open_intervals(values: list[int]) -> None:
    edges = [-np.inf, *SIDE_EDGES, np.inf]
    wanted = [sum(low <= value < high for value in values) for low, high in pairwise(edges)]
    assert histogram(np.array(values), SIDE_EDGES).counts == tuple(wanted)


def test_mistakes_are_reported(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, word in (
        ((tmp_path / "nowhere",), "does not exist"),
        ((mixed, "--output", tmp_path / "x.beton"), r"must be a \.png file"),
        ((mixed, "--num-drawn", 0), "--num-drawn 0"),
        ((mixed, "--side", 70_000), "of 16 to 2048 pixels"),  # 15 GB a picture
        ((mixed, "--num-images", 0), "--num-images 0 must be at least 1"),
    ):
        with pytest.raises(InputError, match=word):
            call(monkeypatch, *arguments)
    assert not list(tmp_path.iterdir())


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    write_beton(tmp_path / "x.beton", encoded([(30, 40)] * 3), 3, ("a", "b"))
    data = (tmp_path / "x.beton").read_bytes()
    for size in (0, 1, 23, 24, 1000, 2106, len(data) // 2, len(data) - 73, len(data) - 24, len(data) - 1):
        (tmp_path / "cut.beton").write_bytes(data[:size])
        with pytest.raises(InputError, match=r"cut\.beton: ") as caught:
            inspect_source(open_source(tmp_path / "cut.beton"), "x")
        assert "\n" not in str(caught.value)


def test_class_names_that_are_not_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9\x1b[2J")
    folder.mkdir()
    (folder / "1.jpg").write_bytes(jpeg(coded_image(50, 60)))
    call(monkeypatch, tmp_path, "--output", tmp_path / "x.png")
    assert r"caf\udce9\x1b[2J" in printed()
    assert as_json(monkeypatch, tmp_path)["classes"]["names"] == [folder.name]


def test_empty_classes_are_counted() -> None:
    facts = class_facts(("a", "b", "c"), np.array([1, 1]))
    assert facts.counts == (0, 2, 0) and facts.empty == ("a", "c") and facts.median_count == 0


def test_an_invalid_file_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "x\n.beton").write_bytes(b"no data set" * 100)
    command = [sys.executable, str(ROOT / "tools" / "inspect_dataset.py"), str(tmp_path / "x\n.beton")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert r"x\n.beton: format version 28526" in done.stderr

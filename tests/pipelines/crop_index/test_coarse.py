"""Coarse levels of an index: their pixels, which crops come from them, changed and damaged data, interrupted work."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fixres
from fixres.cli.commands.index import parse, run
from fixres.pipelines.crop_index import checkpoints
from fixres.pipelines.crop_index import index as index_module
from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.crop_index.index import CropIndex
from fixres.pipelines.crop_index.journal import journals_of
from fixres.pipelines.crop_index.location import NAME, in_cache
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.inspection.text import as_text
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.loaders.indexed_crops import Filled, IndexedCrops
from fixres.pipelines.roc.halving import halve
from fixres.pipelines.roc.layout import LEVEL_SHIFT
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.sources import open_folder
from fixres.pipelines.spec import InputError, LoaderConfig, TrainCrop
from tests.pipelines.crop_index.made import kill_builders
from tests.pipelines.crop_index.whole_files import libjpegs_crop
from tests.pipelines.roc.conftest import needs_turbojpeg, photo

SIDE, LEVELS = 80, f"{NAME}-coarse"
COARSE, PLAIN = IndexingConfig(2, progress=False, coarse=True), IndexingConfig(2, progress=False)
KINDS = {
    "a.jpg": {"subsampling": "4:2:0"}, "b.jpg": {"subsampling": "4:4:4"}, "c.jpg": {"progressive": True},
    "d.png": {}, "gray.jpg": {}, "small.jpg": {},
}  # fmt: skip
LARGE = [0, 1, 2, 3, 4]  # have a coarse level


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders with a file of each kind; the last one is too small for a coarse level."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data" / "cat").mkdir(parents=True)
    for number, (name, options) in enumerate(KINDS.items()):
        height, width = (190, 250) if name == "small.jpg" else (191 + number, 241 + 2 * number)
        image = Image.fromarray(photo(height, width, seed=number))
        image = image.convert("L") if name == "gray.jpg" else image
        image.save(tmp_path / "data" / "cat" / name, **({"quality": 92} | options if name != "d.png" else {}))
    return tmp_path / "data"


def crops(folder: Path, boxes: np.ndarray, min_zoom: float | None = None) -> tuple[np.ndarray, Filled]:
    """The crop of each image with the same box, uint8 (N, r, r, 3)."""
    made, num = IndexedCrops(open_folder(folder), TrainCrop(), min_zoom), len(KINDS)
    out, plain = np.zeros((num, SIDE, SIDE, 3), np.uint8), np.zeros(num, bool)
    drawn = Boxes(np.broadcast_to(boxes, (num, 4)).astype(np.int32), plain, plain)
    filled = made.fill(np.arange(num), lambda _: [drawn], [out])
    made.close()
    return out, filled


def stored_levels(folder: Path, indices: list[int] = LARGE) -> list[bytes]:
    levels, _ = CropIndex(open_folder(folder)).levels(np.array(indices))
    return list(map(bytes, levels))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / ((one.astype(float) - other) ** 2).mean())


def files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in (NAME, LEVELS)]


@needs_turbojpeg
def test_crops_are_those_of_the_level_as_libjpeg_decodes_it(folder: Path) -> None:
    assert build_index(open_folder(folder), COARSE).num_levels == len(LARGE)
    source, box = open_folder(folder), (11, 3, 150, 181)
    full, _ = crops(folder, box, min_zoom=float("inf"))
    made, filled = crops(folder, box)
    assert filled.counts[:, LEVEL_SHIFT].tolist() == [1] * len(LARGE) + [0] and not filled.problems
    for one, jpeg in zip(LARGE, stored_levels(folder), strict=True):
        half = halve(decode_rgb(source.read(one), ""))
        assert (filled.sizes[one] == decode_rgb(source.read(one), "").shape[:2]).all()
        expected = libjpegs_crop(jpeg, half.shape[:2], tuple(side / 2 for side in box), SIDE)
        assert np.array_equal(made[one], expected), one
        assert psnr(made[one], full[one]) > 26, one
        assert psnr(decode_rgb(jpeg, ""), half) > 26, one
    assert np.array_equal(made[5], full[5])


def test_a_level_is_used_where_it_has_enough_pixels(folder: Path) -> None:
    build_index(open_folder(folder), COARSE)
    enough = -(-2 * 7 * SIDE // 10)
    for side, min_zoom, shift in ((enough, None, 1), (enough - 1, None, 0), (enough, 0.75, 0), (2 * SIDE, 1.0, 1)):
        _, filled = crops(folder, (0, 0, side, 2 * SIDE), min_zoom)
        assert (filled.counts[LARGE, LEVEL_SHIFT] == shift).all(), side


def test_files_are_not_read_for_coarse_crops(folder: Path) -> None:
    build_index(open_folder(folder), COARSE)
    source = open_folder(folder)
    made, read = IndexedCrops(source, TrainCrop(), None), []
    source.read = read.append
    out, plain = np.zeros((2, SIDE, SIDE, 3), np.uint8), np.zeros(2, bool)
    drawn = Boxes(np.array([[0, 0, 150, 150]] * 2), plain, plain)
    made.fill(np.array([0, 2]), lambda _: [drawn], [out])
    assert read == [] and out.any(axis=(1, 2, 3)).all()


def test_an_index_gets_levels_without_another_scan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(open_folder(folder), COARSE)
    undisturbed = files(folder)
    build_index(open_folder(folder), IndexingConfig(1, overwrite=True, progress=False))
    assert not (folder / LEVELS).exists()
    scan = checkpoints.scan_batch
    monkeypatch.setattr(checkpoints, "scan_batch", lambda data, spans: scan(data, spans) if len(spans) < 2 else 1 / 0)
    build_index(open_folder(folder), COARSE)
    assert files(folder) == undisturbed
    monkeypatch.setattr(index_module.CropIndex, "add_levels", None)
    assert build_index(open_folder(folder), COARSE).num_kept == len(KINDS)  # there is nothing left to do


def test_a_killed_command_is_continued(folder: Path) -> None:
    build_index(open_folder(folder), COARSE)
    undisturbed, rng = files(folder), np.random.default_rng(0)
    for moment in range(5):
        for name in (NAME, LEVELS)[moment % 2 :]:
            (folder / name).unlink()
        kill_builders(folder, COARSE, rng.uniform(0, 0.05))
        build_index(open_folder(folder), COARSE)
        assert files(folder) == undisturbed, moment
        assert not journals_of(folder / NAME) and not journals_of(folder / LEVELS)


def test_levels_of_changed_files_are_not_used(folder: Path) -> None:
    build_index(open_folder(folder), COARSE)
    source, box = open_folder(folder), (0, 0, 150, 200)
    before, _ = crops(folder, box)
    replaced, truncated, touched = map(Path, source.files[:3])
    Image.fromarray(255 - photo(191, 241)).save(replaced, quality=92)
    truncated.write_bytes(truncated.read_bytes()[:-40])
    os.utime(touched, ns=(1, 1))
    after, filled = crops(folder, box)
    assert (np.abs(before[0].astype(int) - after[0]).mean() > 20) and list(filled.problems) in ([], [1])
    assert filled.counts[:, LEVEL_SHIFT].tolist() == [0, 0, 0, 1, 1, 0]  # touched: compared with its digest first
    after, filled = crops(folder, box)
    assert filled.counts[:, LEVEL_SHIFT].tolist() == [0, 0, 1, 1, 1, 0] and np.array_equal(before[2:], after[2:])
    done = build_index(open_folder(folder), COARSE)
    assert done.num_levels == len(LARGE) - 1 and done.decoded_whole[checkpoints.REASONS[checkpoints.DAMAGED]] == 1
    after, filled = crops(folder, box)
    assert filled.counts[0, LEVEL_SHIFT] == 1 and np.abs(before[0].astype(int) - after[0]).mean() > 20


def test_damaged_levels_name_the_image(folder: Path) -> None:
    build_index(open_folder(folder), COARSE)
    whole, rng = (folder / LEVELS).read_bytes(), np.random.default_rng(0)
    starts = [whole.index(jpeg) for jpeg in stored_levels(folder)]
    for at in rng.integers(64, max(starts), 20).tolist():
        (folder / LEVELS).write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(InputError, match=rf"{folder}/cat/\S+: .* damaged; .*fixres index {folder} --coarse --over"):
            crops(folder, (0, 0, 150, 200))
    for at in (9, len(whole) - 2):
        (folder / LEVELS).write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(InputError, match=re.escape(LEVELS)):
            crops(folder, (0, 0, 150, 200))
    (folder / LEVELS).write_bytes(whole[: len(whole) // 2])
    build_index(open_folder(folder), IndexingConfig(1, overwrite=True, progress=False, coarse=True))
    assert (folder / LEVELS).read_bytes() == whole


def test_the_levels_of_read_only_data_lie_in_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))
    build_index(open_folder(folder), COARSE)
    place = in_cache(folder)
    assert place.with_name(place.name + "-coarse").exists() and not (folder / LEVELS).exists()
    assert (crops(folder, (0, 0, 150, 200))[1].counts[LARGE, LEVEL_SHIFT] == 1).all()


def test_an_image_that_cannot_be_decoded_is_listed(folder: Path) -> None:
    (folder / "cat" / "d.png").write_bytes((folder / "cat" / "d.png").read_bytes()[:2000])
    (line,) = build_index(open_folder(folder), COARSE).bad_samples
    assert "cat/d.png" in line


def test_loaders_and_data_sets_use_the_levels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = fixres.CropDataset(folder, SIDE, seed=0, hflip=0.5, output_type="numpy")
    before = [plain[k][0] for k in range(len(KINDS))]
    assert not (folder / LEVELS).exists()  # only the command makes them
    run(parse([str(folder), "--coarse", "--num-workers", "1"]))
    assert f"; {len(LARGE)} at half their size, " in capsys.readouterr().out
    facts = fixres.inspect(folder)
    assert facts.index.num_levels == len(LARGE) and facts.index.coarse_bytes == len(files(folder)[1])
    assert f"4 images with checkpoints, 2 decoded whole, 0.0 MB; {len(LARGE)} at half" in as_text(facts)
    dataset = fixres.CropDataset(folder, SIDE, seed=0, hflip=0.5, output_type="numpy")
    after = [dataset[k][0] for k in range(len(KINDS))]
    config = LoaderConfig(folder, TrainCrop(), SIDE, 3, shuffle=False, drop_last=False, num_workers=2)
    with open_loader("roc", config) as loader:
        images = np.concatenate([batch.images.numpy() for batch in loader])
        assert loader.counters.num_by_shift[1] > 0
    assert np.array_equal(images, after)
    assert not np.array_equal(before, after)


def test_several_crops_of_an_image_come_from_different_levels(folder: Path) -> None:
    build_index(open_folder(folder), COARSE)
    num, plain = len(KINDS), np.zeros(len(KINDS), bool)
    boxes = [Boxes(np.array([[0, 0, side, side]] * num), plain, plain) for side in (150, 40)]
    views = [np.zeros((num, SIDE, SIDE, 3), np.uint8) for _ in boxes]
    IndexedCrops(open_folder(folder), TrainCrop(), None).fill(np.arange(num), lambda _: boxes, views)
    for drawn, view in zip(boxes, views, strict=True):
        assert np.array_equal(view, crops(folder, drawn.yxhw)[0])


def test_files_that_changed_places_are_noticed(folder: Path) -> None:
    one, other = (folder / "cat" / name for name in ("a.jpg", "b.jpg"))
    Image.fromarray(255 - photo(191, 241)).save(other, quality=92)
    size = max(path.stat().st_size for path in (one, other))
    for path in (one, other):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))  # decoders ignore what follows the image
        os.utime(path, ns=(1, 1))
    build_index(open_folder(folder), COARSE)
    box = (0, 0, 150, 200)
    before, filled = crops(folder, box)
    assert filled.counts[:2, LEVEL_SHIFT].tolist() == [1, 1]
    for source, target in ((one, folder / "c"), (other, one), (folder / "c", other)):
        source.rename(target)
    after, filled = crops(folder, box)
    assert filled.counts[:2, LEVEL_SHIFT].tolist() == [0, 0] and psnr(before[0], after[1]) > 26
    build_index(open_folder(folder), COARSE)
    after, filled = crops(folder, box)
    assert filled.counts[:2, LEVEL_SHIFT].tolist() == [1, 1] and np.array_equal(before[:2], after[1::-1])


def test_files_that_only_look_changed_are_compared_and_not_scanned(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(open_folder(folder), COARSE)
    (folder / "cat" / "a.jpg").chmod(0o600)
    os.link(folder / "cat" / "b.jpg", folder.with_name("link.jpg"))
    monkeypatch.setattr(checkpoints, "scan_batch", None)
    monkeypatch.setattr(index_module.CropIndex, "add_levels", None)
    assert build_index(open_folder(folder), IndexingConfig(1, progress=False)).num_kept == len(KINDS) - 2
    _, filled = crops(folder, (0, 0, 150, 200))
    assert (filled.counts[LARGE, LEVEL_SHIFT] == 1).all()

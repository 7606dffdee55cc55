"""Engine `roc` over images as they are: pixels, the index that it writes, kills, changed files, kinds of sources."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from numba import typeof
from PIL import Image

import fixres
from fixres.pipelines.crop_index import crops
from fixres.pipelines.crop_index import index as index_module
from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.crop_index.index import CropIndex
from fixres.pipelines.crop_index.location import NAME
from fixres.pipelines.crop_index.records import FileStamp
from fixres.pipelines.loaders import indexed_crops, open_loader, roc_indexed
from fixres.pipelines.sources import open_folder, open_stored
from fixres.pipelines.spec import BadSampleError, Batch, EvalCrop, LoaderConfig, TrainCrop
from tests.pipelines.loaders.untouched import NUM, sources_of, write_photos
from tests.pipelines.roc.conftest import photo

SIDE = 32


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def config(path: Path, **fields: object) -> LoaderConfig:
    given = {"crop": TrainCrop(), "resolution": SIDE, "batch_size": 4, "shuffle": True, "num_workers": 2}
    return LoaderConfig(path=path, **given | fields)


def epoch(path: Path, engine: str = "roc", **fields: object) -> list[Batch]:
    with open_loader(engine, config(path, **fields)) as loader:
        return list(loader)


def assert_like(one: list[Batch], other: list[Batch], tolerance: float) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.indices.tolist() == theirs.indices.tolist() and mine.labels.tolist() == theirs.labels.tolist()
        assert (mine.images.int() - theirs.images.int()).abs().float().mean() <= tolerance


def test_the_pixels_are_pillows_and_the_index_is_that_of_the_command(photos: Path, tmp_path: Path) -> None:
    reference = epoch(photos, "torch")
    first = epoch(photos, min_zoom=float("inf"))
    written = (photos / NAME).read_bytes()
    assert_like(first, reference, 0.6)
    assert_like(epoch(photos, min_zoom=float("inf")), first, 0)
    (photos / NAME).unlink()
    build_index(open_folder(photos), IndexingConfig(1, progress=False))
    assert (photos / NAME).read_bytes() == written
    for kind, path in sources_of(photos, tmp_path).items():
        for _ in range(2):
            assert_like(epoch(path, min_zoom=float("inf")), first, 2.0 if kind == "beton" else 0)
        assert CropIndex(open_stored(path)).num_known == NUM, kind


def test_a_kernel_that_is_compiled_aside_has_the_types_of_the_loaders(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, types = crops.decode_indexed, []
    for module in (crops, indexed_crops):
        monkeypatch.setattr(
            module, "decode_indexed", lambda *given: (types.append([*map(typeof, given)]), kernel(*given))
        )
    monkeypatch.setattr(roc_indexed, "compile_aside", lambda: None)
    crops.compile_decoder()
    for _ in range(2):  # images that are scanned, and images of the index
        epoch(photos)
        epoch(photos, crop=EvalCrop(), shuffle=False)
        list(fixres.Loader(photos, SIDE, 4, views=2, device="cpu"))
    assert len(types) > 8 and all(one == types[0] for one in types)


@pytest.mark.parametrize("waits, started", [(True, [crops.compile_decoder]), (False, [])])
def test_a_loader_lets_another_process_compile_what_is_not_on_disk(
    waits: bool, started: list, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list = []
    indexed_crops.compile_aside.cache_clear()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(indexed_crops, "waits_for_compilation", lambda _: waits)
    monkeypatch.setattr(indexed_crops, "start_aside", calls.append)
    for _ in range(2):
        epoch(photos)
    assert calls == started


def test_a_loader_says_what_it_indexes_and_what_is_decoded_whole(photos: Path, capfd) -> None:
    with fixres.Loader(photos, SIDE, 4, device="cpu") as loader:
        assert type(loader._loader).__name__ == "IndexedLoader"
        list(loader)
        assert (
            f"14 images of 14 not indexed yet; the first epoch does it, into {photos / NAME}" in capfd.readouterr().err
        )
        assert loader.counters.num_images == 12 and loader.counters.pixels_decoded < loader.counters.pixels_stored
    epoch(photos)
    with open_loader("roc", config(photos)):
        assert "2 of 14 images (14.3 %) are decoded whole: 1 not a JPEG file, 1 progressive" in capfd.readouterr().err


def test_a_killed_training_leaves_what_it_has_scanned(photos: Path) -> None:
    epoch(photos)
    undisturbed = (photos / NAME).read_bytes()
    for seed in range(4):
        (photos / NAME).unlink()
        if (pid := os.fork()) == 0:
            for number, _ in enumerate(open_loader("roc", config(photos, seed=seed))):
                if number == seed % 3:
                    os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert CropIndex(open_folder(photos)).num_known >= 4
        epoch(photos, seed=seed)
        assert (photos / NAME).read_bytes() == undisturbed


def test_replaced_images_are_scanned_again(photos: Path) -> None:
    with open_loader("roc", config(photos, shuffle=False)) as loader:
        before = list(loader)
        path = photos / "class0" / "00.jpg"
        Image.fromarray(255 - photo(90, 140)).save(path, quality=90)
        os.utime(path, ns=(1, 1))
        after = list(loader)
    changed = (before[0].images.int() - after[0].images.int()).abs().float().mean((1, 2, 3)) > 20
    assert changed.tolist() == [True, False, False, False]
    assert_like(epoch(photos, shuffle=False), after, 0)


def test_where_index_and_file_disagree_the_image_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        index_module, "_stamp", lambda _: FileStamp(1, 1, 1)
    )  # as of a file system without change times
    epoch(photos)
    path = photos / "class0" / "00.jpg"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(BadSampleError, match=rf"{path}: .*fixres index {photos} --overwrite"):
        epoch(photos, crop=TrainCrop((0.9, 1.0)))
    replaced = epoch(photos, crop=TrainCrop((0.9, 1.0)), on_bad="replace", shuffle=False)
    assert replaced[0].indices.tolist() == [1, 1, 2, 3]


def test_crop_datasets_read_images_by_the_index(photos: Path) -> None:
    dataset = fixres.CropDataset(photos, SIDE, seed=0, hflip=0.5, output_type="numpy")
    first = [dataset[k][0] for k in range(NUM)]
    for batch in epoch(photos, shuffle=False):
        for index, image in zip(batch.indices.tolist(), batch.images.numpy(), strict=True):
            assert np.array_equal(image, first[index])
    assert CropIndex(open_folder(photos)).num_known == NUM

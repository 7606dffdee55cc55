"""FFCV as an engine. It compiles for 10 to 20 s per loader, so all tests share two loaders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numba import types

from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.beton_writer import write_beton
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.sampling.order import batches
from fixres.pipelines.spec import BadSampleError, InputError, Loader
from tests.coded import read_box
from tests.pipelines.loaders import loading
from tests.pipelines.loaders.loading import TRAIN, check_boxes, check_codes, collect, config, encoded

NUM, BAD = 24, 12
KIND = types.uint8[::1]  # held, so that everyone in this process gets the same object


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """Its import takes 4 s of a core, so processes without these tests do not do it."""
    pytest.importorskip("ffcv", reason="FFCV is not installed")


@pytest.fixture(scope="module")
def sizes() -> list[tuple[int, int]]:
    generator = np.random.default_rng(2)
    return [tuple(int(side) for side in generator.integers(80, 320, 2)) for _ in range(NUM)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sizes: list) -> Path:
    """A file with a further field, as RoC records have."""
    path = tmp_path_factory.mktemp("ffcv") / "whole.beton"
    samples = [sample._replace(extra=(b"levels",)) for sample in encoded(sizes)]
    write_beton(path, samples, NUM, classes=loading.CLASSES, extra_fields=["roc"])
    return path


@pytest.fixture(scope="module")
def damaged(whole: Path) -> Path:
    """The same with the second half of sample BAD's JPEG overwritten."""
    offset, size = BetonReader(whole).image_spans[BAD]
    data = bytearray(whole.read_bytes())
    data[offset + size // 2 : offset + size] = bytes(size - size // 2)
    path = whole.with_name("damaged.beton")
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def training(whole: Path) -> Iterator[Loader]:
    with open_loader("ffcv", config(whole, crop=TRAIN, shuffle=True, drop_last=True)) as loader:
        yield loader
    assert not any("EpochIterator" in type(thread).__name__ for thread in threading.enumerate())


@pytest.fixture(scope="module")
def testing(damaged: Path) -> Iterator[Loader]:
    with open_loader("ffcv", config(damaged, on_bad="replace", rank=0, world_size=2, num_workers=2)) as loader:
        yield loader


@pytest.mark.slow
def test_training(training: Loader, sizes: list) -> None:
    """Our order, FFCV's crops within the image, random flips, and resolutions that change without a rebuild."""
    assert not training.shares_boxes and len(training) == 4 and training.classes == loading.CLASSES
    num_threads, flips, crops = torch.get_num_threads(), [], []
    for epoch, resolution in enumerate((64, 40, 72, 64)):
        training.set_epoch(epoch)
        training.set_resolution(resolution)
        seen = collect(training)
        assert seen.indices.tolist() == np.concatenate(list(batches(training.config, NUM, epoch))).tolist()
        check_codes(seen, np.arange(NUM), np.arange(NUM) % 2)
        for image, index in zip(seen.images, seen.indices, strict=True):
            height, width = sizes[index]
            y, x, h, w, flip = read_box(image, height, width)
            flips.append(flip)
            crops.append((epoch, int(index), y, x))
            assert min(y / height, x / width) > -0.05 and max((y + h) / height, (x + w) / width) < 1.05
    assert 16 < sum(flips) < 64  # 80 coins: 5 standard deviations
    assert len({(y, x) for _, index, y, x in crops if index == crops[0][1]}) > 1
    assert torch.get_num_threads() == num_threads


@pytest.mark.slow
def test_other_kernels_still_write_to_arrays(training: Loader) -> None:
    """Stock FFCV makes numba's type of uint8 arrays read-only for the whole process."""
    assert KIND.mutable and KIND is types.uint8[::1]


@pytest.mark.slow
def test_resuming(training: Loader) -> None:
    training.set_epoch(5)
    order = np.concatenate(list(batches(training.config, NUM, 5))).tolist()
    running = iter(training)
    next(running), next(running)
    state = training.state_dict()
    assert (state["epoch"], state["position"]) == (5, 10)
    training.set_epoch(6)
    training.load_state_dict(state)
    training.set_epoch(5)
    assert collect(training).indices.tolist() == order[10:]
    assert collect(training).indices.tolist() == order


@pytest.mark.slow
def test_counters(training: Loader, whole: Path, sizes: list) -> None:
    reader, before = BetonReader(whole), replace(training.counters)
    indices = collect(training).indices
    after = training.counters
    assert after.num_images - before.num_images == 20
    assert after.bytes_read - before.bytes_read == sum(len(reader.image_bytes(i)) for i in indices)
    assert after.pixels_decoded - before.pixels_decoded == sum(sizes[i][0] * sizes[i][1] for i in indices)


@pytest.mark.slow
def test_testing_and_damage(testing: Loader, sizes: list) -> None:
    """In file order, our share of it, FFCV's own center box; the damaged sample is replaced or stops the run."""
    wanted = np.concatenate(list(batches(testing.config, NUM, 0)))
    assert BAD in wanted
    for resolution in (64, 48, 64):
        testing.set_resolution(resolution)
        seen = collect(testing)
        assert seen.batch_sizes == [5, 5, 2]
        assert seen.indices.tolist() == np.where(wanted == BAD, BAD + 1, wanted).tolist()
        check_codes(seen, np.arange(NUM), np.arange(NUM) % 2)
        side = np.array([int(0.875 * min(size)) for size in sizes])
        boxes = np.column_stack([*((np.array(sizes).T - side) // 2), side, side])
        check_boxes(seen, np.array(sizes), boxes, np.zeros(NUM, bool), tolerance=0.05)
    assert testing.counters.num_bad_samples == 3
    assert all(f"damaged.beton: sample {BAD}" in line for line in testing.counters.bad_samples)
    testing.config = replace(testing.config, on_bad="stop")
    with pytest.raises(BadSampleError, match=f"damaged.beton: sample {BAD}") as caught:
        collect(testing)
    assert caught.value.index == BAD


def test_a_truncated_file_is_one_line(whole: Path, tmp_path: Path) -> None:
    for share in (0.01, 0.5, 0.99):
        path = tmp_path / "cut.beton"
        path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        with pytest.raises(InputError, match=r"cut\.beton") as caught:
            open_loader("ffcv", config(path))
        assert "\n" not in str(caught.value)


def test_buffers_larger_than_memory_are_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    with pytest.raises(InputError, match="--max-side"):
        open_loader("ffcv", config(whole))

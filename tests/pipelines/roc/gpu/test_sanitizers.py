"""The kernels' memory accesses and barriers, with the sanitizers of g++."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.roc.encoder import RocQuality, encode, index_jpeg
from tests.pipelines.crop_index.gpu import test_kernels as by_index
from tests.pipelines.roc import fuzzer
from tests.pipelines.roc.conftest import photo
from tests.pipelines.roc.gpu import host_build
from tests.pipelines.roc.gpu.decoding import Crops, random_crops
from tests.pipelines.roc.gpu.replay import replay, write_batch
from tests.pipelines.roc.gpu.test_kernels import crops_of

pytestmark = [host_build.needs_compiler, pytest.mark.slow]


def mutants(num: int, seed: int) -> Crops:
    """Damaged samples of the fuzzer, half of them in the record, half in the image."""
    random, sound, made = np.random.default_rng(seed), fuzzer.samples(), []
    for k in range(num):
        image, record, height, width = sound[random.integers(0, len(sound))]
        damaged = (image, fuzzer.mutate(record, random)) if k % 2 else (fuzzer.mutate(image, random), record)
        made.append((*damaged, height, width))
    return crops_of(made, 33, seed)


@pytest.mark.parametrize("packed", [True, False])
def test_memory_accesses_and_arithmetic(tmp_path: Path, packed: bool) -> None:
    """3000 sound and damaged crops: no access outside an array, no undefined arithmetic."""
    program = host_build.build("replay.cpp", *host_build.SANITIZED)
    for seed, resolution in enumerate((64, 97, 128, 8, 224)):
        for crops in (random_crops(150, resolution, seed), mutants(150, seed)):
            done = replay(program, write_batch(tmp_path / "batch", crops, packed))
            assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def several_passes() -> Crops:
    """Blocks decode several times 128 segments, fill the stage more than once, and make several strips of rows."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    samples = [(*encode(noise, RocQuality(quality=98, num_levels=1)), 300, 400)]
    samples += [(*encode(photo(400, 300), RocQuality(num_levels=2, min_short_side=16)), 400, 300)]
    samples += [(*encode(np.tile(photo(48, 400), (1, 4, 1)), RocQuality(num_levels=1)), 48, 1600)]
    crops = crops_of(samples, 48)
    crops.boxes[:] = [(0, 0, 300, 400), (10, 20, 350, 200), (0, 0, 48, 1600)]
    return crops


def test_no_thread_needs_what_another_one_writes_without_a_barrier(tmp_path: Path) -> None:
    program, _ = host_build.build_threaded(tmp_path / "kernels")
    num = int(os.environ.get("ROC_GPU_THREADED_CROPS", 180)) // 3
    for crops in (several_passes(), random_crops(num, 64, 1), random_crops(num, 33, 4), mutants(num, 1), overrun()):
        done = replay(program, write_batch(tmp_path / "batch", crops), timeout=250 + num)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def overrun() -> Crops:
    """Segments of random bytes, so that decoding them often reads beyond their end."""
    image, record = encode(photo(97, 130), RocQuality(num_levels=1, quality=95))
    random, data, at = np.random.default_rng(1), bytearray(image), index_jpeg(image).header_size
    for length in index_jpeg(image).lengths.tolist():
        data[at : at + length - 2] = random.integers(0, 255, length - 2, np.uint8).tobytes()
        at += length
    crops = crops_of([(bytes(data), record, 97, 130)], 33)
    crops.boxes[:] = (0, 0, 97, 130)
    return crops


def finds_a_mistake(program: Path, batches: list[Path], left_out: int) -> bool:
    """Whether a sanitizer or the comparison fails, or the threads wait for each other forever."""
    first_only = {"LEFT_OUT": str(left_out), "TSAN_OPTIONS": "halt_on_error=1 symbolize=0"}
    for batch in batches:
        try:
            if replay(program, batch, 60, first_only).returncode:
                return True
        except subprocess.TimeoutExpired:
            return True
    return False


@pytest.mark.timeout(1800)
def test_each_barrier_is_needed(tmp_path: Path) -> None:
    kinds = (several_passes(), random_crops(20, 64, 1), overrun())
    batches = [write_batch(tmp_path / str(number), crops) for number, crops in enumerate(kinds)]
    batches.append(by_index.write_indexed(tmp_path / "by_index", by_index.several_passes()))
    program, places = host_build.build_threaded(tmp_path / "kernels")
    assert not finds_a_mistake(program, batches[:1], left_out=-1)
    missed = [place for number, place in enumerate(places) if not finds_a_mistake(program, batches, number)]
    assert len(places) > 5 and missed == [], "\n".join(missed)

"""Crops by an index: the GPU's kernels, compiled as host code, give engine `roc`'s pixels, or refuse as it does."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.crop_index import checkpoints as ck
from fixres.pipelines.roc.layout import BAD_BOX, LEVEL_SHIFT, NOT_AS_INDEXED, OK, OUTSIDE_FILE
from tests.pipelines.crop_index.gpu.decoding import Crops, by_cpu, by_gpu, crops_of, prepare
from tests.pipelines.crop_index.whole_files import save, simple
from tests.pipelines.roc.conftest import photo
from tests.pipelines.roc.fuzzer import mutate
from tests.pipelines.roc.gpu import host_build
from tests.pipelines.roc.gpu.replay import replay, write_prepared

# The whole acceptance test: ROC_GPU_CROPS=20000 ROC_GPU_MUTANTS=100000 pytest tests/pipelines/crop_index/gpu
NUM_CROPS = int(os.environ.get("ROC_GPU_CROPS", 400))
NUM_MUTANTS = int(os.environ.get("ROC_GPU_MUTANTS", 1200))
SETTINGS = ((64, np.inf), (97, 0.3), (33, 0.8), (16, 0.2), (8, 0.1), (128, 0.8))  # resolution, min_zoom
SIZES = ((1, 1), (1, 300), (7, 9), (17, 2), (3, 4), (33, 5), (40, 131), (129, 257), (333, 500))
_NUMBERS = (0, 1, 2, 4, 255, 65536, 2**32, 2**62, -1)

pytestmark = host_build.needs_compiler
File = tuple[bytes, ck.Checkpoints]


def indexed(jpeg: bytes) -> File:
    return jpeg, ck.scan(jpeg)


@cache
def files() -> tuple[File, ...]:
    """All samplings, gray, restart markers at any distance, sizes from 1 x 1."""
    made = []
    for number, size in enumerate(SIZES):
        image = photo(*size, seed=number)
        made += [simple(image, 91 - 9 * number, name) for name in ("444", "422", "420", "440", "411", "Gray")]
        made.append(save(image[..., 0], quality=80, optimize=True, restart_marker_blocks=5))
        for interval in (1, 3, 16, 1000):
            made.append(save(image, quality=97, subsampling="4:4:4", restart_marker_blocks=interval))
        made.append(save(image, quality=85, restart_marker_rows=1))
    return tuple(indexed(jpeg) for jpeg in made)


def check_equal(crops: Crops) -> np.ndarray:
    """Compares codes, counts and pixels; returns engine `roc`'s codes."""
    images, codes, counts = by_cpu(crops)
    got, got_codes, got_counts = by_gpu(crops, host_build.load())
    good = codes == OK
    assert ((got_codes == OK) == good).all(), (codes, got_codes)
    assert (got[good] == images[good]).all() and (got_counts[good] == counts[good]).all()
    return codes


def test_crops_of_all_kinds_are_equal() -> None:
    shifts = np.zeros(4, np.int64)
    for seed in range(max(NUM_CROPS // len(files()), len(SETTINGS))):
        resolution, zoom = SETTINGS[seed % len(SETTINGS)]
        crops = crops_of(files(), resolution, seed, zoom)
        assert (check_equal(crops) == OK).all()
        shifts += np.bincount(by_cpu(crops)[2][:, LEVEL_SHIFT], minlength=4)
    assert (shifts > 10).all()


def test_segments_that_do_not_fit_are_decoded_in_several_passes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 260, 3), np.uint8)
    for zoom in (np.inf, 0.8):
        crops = crops_of([indexed(save(noise, quality=100, subsampling=name)) for name in (0, 2)], 24, 0, zoom)
        crops.boxes[:] = 0, 0, 70, 260
        assert prepare(crops).stored.size > 4 * 16384 and (check_equal(crops) == OK).all()


@pytest.mark.parametrize("min_zoom", [np.inf, 0.1])
def test_coefficients_that_need_more_than_16_bits(min_zoom: float) -> None:
    """Quantization steps of 255 make the coefficients of sound data larger than any encoder does."""
    made = []
    for seed in range(6):
        contrast = np.random.default_rng(seed).choice(np.array([0, 255], np.uint8), (40, 152, 3))
        jpeg = bytearray(save(contrast, quality=100, subsampling=seed % 3))
        for number in range(2):
            at = jpeg.index(b"\xff\xdb\x00\x43" + bytes([number])) + 5
            jpeg[at : at + 64] = bytes([255] * 64)
        made.append(indexed(bytes(jpeg)))
    for seed in range(4):
        assert (check_equal(crops_of(made, 8, seed, min_zoom)) == OK).all()


def mutant(file: File, random: np.random.Generator) -> File:
    """The file, its checkpoints or its place in the index changed."""
    jpeg, (sample, words) = file
    if random.random() < 0.5:
        return mutate(jpeg, random), ck.Checkpoints(sample, words)
    sample, words = sample.copy(), words.copy()
    for _ in range(random.integers(1, 4)):
        if random.random() < 0.3:
            sample[random.choice([0, *range(2, len(sample))])] = int(random.choice(_NUMBERS))
        else:
            words[random.integers(0, len(words))] ^= 1 << int(random.integers(0, 16))
    return jpeg, ck.Checkpoints(sample, words)


def mutants(num: int, seed: int) -> Crops:
    """A crop of each of so many damaged files."""
    random, resolution = np.random.default_rng(seed), (8, 33, 64)[seed % 3]
    sound = [file for file in files() if 100 < len(file[0]) and file[1].words.size > 20]
    made = [mutant(sound[random.integers(0, len(sound))], random) for _ in range(num)]
    crops = crops_of(made, resolution, seed, (np.inf, 1.0, 0.1)[seed // 2 % 3])
    crops.boxes[random.random(num) < 0.02, 0] = random.choice([np.nan, np.inf, -1, 1e18])
    return crops


def test_mutants_are_accepted_by_both_or_by_none() -> None:
    """Damaged coefficients that are accepted give the same pixels, too."""
    codes = np.concatenate([check_equal(mutants(100, seed)) for seed in range(NUM_MUTANTS // 100)])
    assert {OK, OUTSIDE_FILE, NOT_AS_INDEXED, BAD_BOX} <= set(codes.tolist())
    assert 0.1 * NUM_MUTANTS < (codes == OK).sum() < 0.9 * NUM_MUTANTS


def write_indexed(path: Path, crops: Crops) -> Path:
    """Writes a batch, and engine `roc`'s codes and images of it."""
    images, codes, _ = by_cpu(crops)
    return write_prepared(path, prepare(crops), codes, images)


def several_passes() -> Crops:
    """Blocks decode several times 128 segments, and fill the stage more than once."""
    noise = np.random.default_rng(0).integers(0, 256, (180, 260, 3), np.uint8)
    made = [save(noise, quality=98, subsampling=0), simple(photo(333, 500), 90, "420")]
    crops = crops_of([indexed(jpeg) for jpeg in made], 24, 0, 1.0)
    crops.boxes[:] = [(0, 0, 180, 260), (0, 0, 333, 500)]
    return crops


@pytest.mark.slow
def test_memory_accesses_and_arithmetic(tmp_path: Path) -> None:
    """Sound and damaged crops: no access outside an array, no undefined arithmetic."""
    program = host_build.build("replay.cpp", *host_build.SANITIZED)
    for seed, (resolution, zoom) in enumerate(SETTINGS):
        for crops in (crops_of(files(), resolution, seed, zoom), mutants(200, seed)):
            done = replay(program, write_indexed(tmp_path / "batch", crops))
            assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
def test_no_thread_needs_what_another_one_writes_without_a_barrier(tmp_path: Path) -> None:
    program, _ = host_build.build_threaded(tmp_path / "kernels")
    for crops in (several_passes(), crops_of(files()[::3], 33, 1, 0.3), mutants(40, 1)):
        done = replay(program, write_indexed(tmp_path / "batch", crops), timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]

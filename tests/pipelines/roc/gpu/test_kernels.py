"""The GPU's kernels, compiled as host code, give the pixels of engine `roc` to the bit and refuse the same samples."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from fixres.models.factory import Normalize
from fixres.pipelines.roc import layout
from fixres.pipelines.roc.encoder import RocQuality, encode, index_jpeg
from fixres.pipelines.roc.gpu.arguments import BFLOAT16, HALF
from tests.pipelines.roc import fuzzer
from tests.pipelines.roc.conftest import photo
from tests.pipelines.roc.gpu import host_build
from tests.pipelines.roc.gpu.decoding import Crops, by_cpu, by_gpu, random_boxes, random_crops
from tests.pipelines.roc.hand_made import BEHIND_IT, LAST_PLACE, ZRL, one_block

# The whole acceptance test: ROC_GPU_CROPS=20000 ROC_GPU_MUTANTS=100000 pytest tests/pipelines/roc/gpu/test_kernels.py
NUM_CROPS = int(os.environ.get("ROC_GPU_CROPS", 400))
NUM_MUTANTS = int(os.environ.get("ROC_GPU_MUTANTS", 1500))
RESOLUTIONS = (64, 97, 128, 160, 224, 320, 8, 33)

pytestmark = host_build.needs_compiler


def check_equal(crops: Crops, *options: str, packed: bool = True) -> np.ndarray:
    """Compares codes, counts and pixels; returns engine `roc`'s codes."""
    images, codes, counts = by_cpu(crops)
    got, got_codes, got_counts = by_gpu(crops, host_build.load(*options), packed)
    good = codes == layout.OK
    assert ((got_codes == layout.OK) == good).all(), (codes, got_codes)
    assert (got[good] == images[good]).all() and (got_counts[good] == counts[good]).all()
    return codes


def test_crops_of_all_kinds_are_equal() -> None:
    each = NUM_CROPS // (2 * len(RESOLUTIONS))
    for seed in range(2 * len(RESOLUTIONS)):
        crops = random_crops(each, RESOLUTIONS[seed // 2], seed)
        assert (check_equal(crops, packed=seed % 3 > 0) == layout.OK).all()


def test_a_block_that_decodes_its_segments_in_several_passes() -> None:
    check_equal(random_crops(40, 64, 4), "-DSTAGE_WORDS=2979")


def file_of(samples: list[tuple[bytes, bytes, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """One array of bytes with all samples, and their table."""
    table, at = [], 0
    for image, record, height, width in samples:
        table.append((at, len(image), at + len(image), len(record), height, width))
        at += len(image) + len(record)
    return np.frombuffer(b"".join(part for sample in samples for part in sample[:2]), np.uint8), np.array(table)


def crops_of(samples: list[tuple[bytes, bytes, int, int]], resolution: int, seed: int = 0) -> Crops:
    random, (data, table) = np.random.default_rng(seed), file_of(samples)
    boxes = random_boxes(table, random)
    return Crops(data, table, boxes, *(random.random((2, len(table))) < 0.5), resolution, bool(seed % 2), 0.8)


def test_mutants_are_accepted_by_both_or_by_none() -> None:
    """Damaged coefficients that are accepted give the same pixels, too, however large they are."""
    random, sound = np.random.default_rng(8), fuzzer.samples()
    accepted = 0
    for seed in range(NUM_MUTANTS // 100):
        mutants = []
        for _ in range(100):
            image, record, height, width = sound[random.integers(0, len(sound))]
            if random.random() < 0.5:
                record = fuzzer.mutate(record, random)
            else:
                image = fuzzer.mutate(image, random)
            mutants.append((image, record, height, width))
        codes = check_equal(crops_of(mutants, int(random.choice([8, 33, 64])), seed), packed=seed % 2 == 0)
        accepted += (codes == layout.OK).sum()
    assert 0.1 * NUM_MUTANTS < accepted < 0.9 * NUM_MUTANTS


@pytest.mark.parametrize("seed", range(3))
def test_coefficients_that_need_more_than_16_bits(seed: int) -> None:
    """Quantization steps of 255 make the coefficients of sound data larger than any encoder does."""
    contrast = np.random.default_rng(seed).choice(np.array([0, 255], np.uint8), (40, 56, 3))
    image, record = encode(contrast, RocQuality(quality=100, num_levels=1, subsampling="4:4:4"))
    damaged = bytearray(image)
    for number in range(2):
        at = image.index(b"\xff\xdb\x00\x43" + bytes([number])) + 5
        damaged[at : at + 64] = bytes([255] * 64)
    codes = check_equal(crops_of([(bytes(damaged), record, 40, 56)] * 4, 32, seed))
    assert (codes == layout.OK).all()


def test_an_image_of_which_one_row_of_sums_does_not_fit_into_shared_memory() -> None:
    wide = np.tile(photo(16, 200), (1, 60, 1))
    image, record = encode(wide, RocQuality(num_levels=1, subsampling="4:4:4"))
    crops = crops_of([(image, record, *wide.shape[:2])], 9)
    crops.boxes[0] = (0, 0, *wide.shape[:2])
    check_equal(crops)


def test_a_coefficient_behind_the_last_one_is_refused() -> None:
    jpegs = [one_block([ZRL] * 3 + [symbol]) for symbol in (LAST_PLACE, BEHIND_IT, ZRL)]
    codes = check_equal(crops_of([(jpeg, layout.pack([index_jpeg(jpeg)]), 8, 8) for jpeg in jpegs], 8))
    assert codes.tolist() == [layout.OK, layout.NOT_DECODABLE, layout.NOT_DECODABLE]


def test_a_bad_sample_does_not_change_the_others() -> None:
    crops = random_crops(12, 48, 2)
    sound = by_cpu(crops)[0]
    crops.table[3, layout.ROC_START] = -1
    crops.boxes[7] = np.nan
    images, codes, _ = by_gpu(crops, host_build.load())
    assert np.flatnonzero(codes).tolist() == [3, 7] and codes[[3, 7]].tolist() == [layout.OUTSIDE_FILE, layout.BAD_BOX]
    good = codes == layout.OK
    assert (images[good] == sound[good]).all()


@pytest.mark.parametrize(("kind", "dtype"), [(HALF, torch.float16), (BFLOAT16, torch.bfloat16)])
def test_normalized_output(kind: int, dtype: torch.dtype) -> None:
    crops = random_crops(12, 40, 6)
    images = by_gpu(crops, host_build.load(), kind=kind)[0]
    expected = Normalize()(torch.from_numpy(by_cpu(crops)[0])).to(dtype).permute(0, 2, 3, 1)
    assert (torch.from_numpy(images).view(dtype) == expected).all()

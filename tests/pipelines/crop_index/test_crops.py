"""Crops from checkpoints equal those of libjpeg-turbo's decoding of the whole file, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

from fixres.pipelines.crop_index import checkpoints as ck
from fixres.pipelines.roc.layout import BAD_BOX, BYTES, LEVEL_SHIFT, NOT_AS_INDEXED, OK
from tests.coded import coded_image
from tests.pipelines.crop_index.whole_files import crop, libjpegs_crop, save, simple
from tests.pipelines.roc.conftest import needs_turbojpeg, photo

SIZES = [(1, 1), (1, 300), (7, 9), (16, 16), (17, 2), (3, 4), (33, 5), (40, 131), (129, 257), (300, 260)]
ENCODERS = {
    **{name: lambda image, name=name: simple(image, 91, name) for name in ("444", "422", "420", "440", "411", "Gray")},
    "optimized": lambda image: save(image, quality=97, optimize=True),
    "standard tables": lambda image: save(image, quality=75, optimize=False, subsampling="4:2:2"),
    "low quality": lambda image: save(image, quality=3, optimize=True),
    "gray": lambda image: save(image[..., 0], restart_marker_blocks=5),
    **{
        f"restart {num}": lambda image, num=num: save(image, subsampling="4:4:4", restart_marker_blocks=num)
        for num in (1, 3, 16, 1000)
    },
    "restart rows": lambda image: save(image, quality=90, restart_marker_rows=1),
}


def images(height: int, width: int) -> list[np.ndarray]:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return [coded_image(height, width, 3), noise]


@needs_turbojpeg
@pytest.mark.parametrize("encoder", ENCODERS)
def test_crops_equal_libjpegs(encoder):
    random = np.random.default_rng(4)
    for height, width in SIZES:
        for image in images(height, width):
            jpeg = ENCODERS[encoder](image)
            found = ck.scan(jpeg)
            assert found.sample[[ck.KIND, ck.HEIGHT, ck.WIDTH]].tolist() == [ck.INDEXED, height, width]
            for number in range(4):
                h, w = random.integers(1, height + 1), random.integers(1, width + 1)
                box = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1)), int(h), int(w)
                box, inside = (0, 0, height, width) if number == 0 else box, number % 2 == 0
                code, ours, _ = crop(jpeg, found, box, inside=inside)
                assert code == OK, (height, width, box)
                assert (ours == libjpegs_crop(jpeg, (height, width), box, inside=inside)).all(), (height, width, box)


def test_a_coded_image_shows_its_box():
    jpeg = save(coded_image(400, 600, 2), quality=98)
    code, pixels, counts = crop(jpeg, ck.scan(jpeg), (100, 300, 200, 150))
    ys, xs = 100 + 200 * (np.arange(32) + 0.5) / 32 - 0.5, 300 + 150 * (np.arange(32) + 0.5) / 32 - 0.5
    assert code == OK
    assert abs(pixels[..., 0].mean(0) - 255 * xs / 599).max() < 3
    assert abs(pixels[..., 1].mean(1) - 255 * ys / 399).max() < 3
    assert abs(pixels[..., 2].mean() - 80) < 2
    assert counts[BYTES] < 0.5 * len(jpeg)


@pytest.mark.parametrize("interval", [0, 3, 32])
def test_a_changed_checkpoint_is_noticed(interval):
    """Each word is changed. It may only be one that decides nothing: the state behind a restart marker is known."""
    jpeg = save(photo(40, 400), quality=85, restart_marker_blocks=interval)
    found, box = ck.scan(jpeg), (0, 0, 40, 400)
    valid, refused = crop(jpeg, found, box)[1], 0
    for at in range(found.words.size):
        for change in (1, 2, 8, 1 << 15):
            words = found.words.copy()
            words[at] ^= change
            code, pixels, _ = crop(jpeg, ck.Checkpoints(found.sample, words), box)
            assert code == NOT_AS_INDEXED or (code == OK and (pixels == valid).all())
            refused += code != OK
    changes = 4 * found.words.size
    assert refused > (0.9 if interval == 0 else 0.3) * changes


def test_a_changed_file_is_noticed():
    jpeg = save(photo(40, 400), quality=85)
    found, box = ck.scan(jpeg), (0, 100, 40, 300)
    assert crop(jpeg, found, box)[0] == OK
    other = save(photo(40, 400, seed=1), quality=85)
    assert crop(other, found, box)[0] == NOT_AS_INDEXED
    assert crop(jpeg[: len(jpeg) // 2], found, box)[0] == NOT_AS_INDEXED
    assert crop(save(photo(40, 401), quality=85), found, box)[0] == NOT_AS_INDEXED
    assert crop(jpeg, found, (0, 100, 41, 300))[0] == BAD_BOX


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_smaller_transforms_take_the_lowest_frequencies(shift):
    """Against a cosine transform in floating point, where no resampling is left to do."""
    side = 8 >> shift
    image = photo(256, 256)[..., 1]
    jpeg = save(image, qtables=[[1] * 64])
    code, pixels, counts = crop(jpeg, ck.scan(jpeg), (0, 0, 256, 256), 256 >> shift, min_zoom=0.7)
    assert code == OK and counts[LEVEL_SHIFT] == shift
    blocks = image.reshape(32, 8, 32, 8).transpose(0, 2, 1, 3) - 128.0
    low = (_cosines(8) @ blocks @ _cosines(8).T)[..., :side, :side] * side / 8
    wanted = (_cosines(side).T @ low @ _cosines(side)).transpose(0, 2, 1, 3).reshape(256 >> shift, 256 >> shift)
    assert abs(pixels[..., 0] - np.clip(wanted + 128, 0, 255)).max() < 2


def _cosines(num: int) -> np.ndarray:
    """The orthonormal cosine transform."""
    matrix = np.cos(np.pi * np.arange(num)[:, None] * (2 * np.arange(num) + 1) / (2 * num)) * np.sqrt(2 / num)
    matrix[0] /= np.sqrt(2)
    return matrix


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
def test_scaled_crops_are_close_to_full_ones(subsampling):
    jpeg = simple(coded_image(333, 517), 92, subsampling)
    found = ck.scan(jpeg)
    for box in ((0, 0, 333, 517), (41, 77, 250, 301), (200.5, 301.2, 132.5, 215.8)):
        full, (code, scaled, counts) = crop(jpeg, found, box)[1], crop(jpeg, found, box, min_zoom=1.0)
        assert code == OK and counts[LEVEL_SHIFT] > 0
        assert 10 * np.log10(255**2 / np.mean((full.astype(float) - scaled) ** 2)) > 45

"""Odd and damaged JPEG files: which are stored as they are, encoded again, or refused."""

from __future__ import annotations

import io
import os
import random
import warnings

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from fixres.pipelines.images.codec import decode_rgb, decode_sound, encode_jpeg, fit_jpeg, fit_rgb
from fixres.pipelines.images.jpeg_damage import examine_jpeg
from fixres.pipelines.spec import BadSampleError
from tests.pipelines.images.odd_jpegs import DAMAGED, ODD, PLAIN

NUM_FUZZED = int(os.environ.get("FIXRES_FUZZED_JPEGS", 400))


@pytest.mark.parametrize("behind", [b"", b"\0" * 9, b"\xff\xd8\xff\xd9", PLAIN["gray"]])
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_files_are_stored_without_what_follows_them(kind: str, behind: bytes) -> None:
    data = PLAIN[kind]
    stored, *_ = fit_jpeg(data + behind, "x.jpg", 0, 500, 90)
    assert stored == data
    assert np.array_equal(fit_rgb(data + behind, "x.jpg", 0, 500), decode_rgb(data, "x.jpg"))
    assert np.array_equal(decode_sound(data + behind, "x.jpg"), decode_rgb(data, "x.jpg"))


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_encoded_again(kind: str) -> None:
    pixels = decode_sound(ODD[kind], "x.jpg")
    stored, *size = fit_jpeg(ODD[kind], "x.jpg", 0, 500, 95)
    assert stored == encode_jpeg(pixels, 95)
    assert examine_jpeg(stored) == (stored, True, None)
    assert tuple(size) == pixels.shape[:2]
    assert np.array_equal(fit_rgb(ODD[kind], "", 0, 500), pixels)


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_refused_or_accepted(kind: str) -> None:
    data = DAMAGED[kind]
    pixels = decode_rgb(data, "x.jpg")  # Pillow says nothing
    for call in (lambda *a: fit_jpeg(*a, 500, 90), lambda *a: fit_rgb(*a, 500), decode_sound):
        with pytest.raises(BadSampleError, match=r"^a/x.jpg: the JPEG is damaged \(.+\); replace it$") as caught:
            call(data, "a/x.jpg", 3)
        assert caught.value.index == 3
    assert np.array_equal(fit_rgb(data, "", 0, 500, damaged="accept"), pixels)
    assert fit_jpeg(data, "", 0, 500, 95, damaged="accept")[0] == encode_jpeg(pixels, 95)


def mutated(random: random.Random, data: bytes) -> bytes:
    """Replaces, removes, inserts or repeats a few bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at, num = random.randrange(2, len(data)), random.choice((0, 1, 1, 2, 30))
        new = random.choice((b"", random.randbytes(1), random.randbytes(num), data[at : at + 2 * num], b"\xff"))
        data = data[:at] + new + data[at + num :]
    return data


def pillow(data: bytes) -> np.ndarray:
    """uint8 HWC RGB as Pillow decodes it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_fuzzed_files_have_the_pixels_of_pillow() -> None:
    """Also where another decoder is faster: the pixels of engine torch and of folders."""
    generator, kinds = random.Random(1), {**PLAIN, **ODD}
    num_decoded = 0
    for number in range(NUM_FUZZED):
        data = mutated(generator, generator.choice(list(kinds.values())))
        try:
            pixels = decode_rgb(data, "x.jpg")
        except BadSampleError:
            continue
        with warnings.catch_warnings(action="ignore"):
            assert np.array_equal(pixels, pillow(data)), number
        num_decoded += 1
    assert num_decoded > NUM_FUZZED / 3


def test_fuzzed_files_never_pass_with_other_pixels() -> None:
    """What is stored as it is gives Pillow and simplejpeg the same pixels, and neither complains."""
    generator, kinds = random.Random(0), {**PLAIN, **ODD}
    outcomes = {"stored": 0, "encoded": 0, "refused": 0}
    for number in range(NUM_FUZZED):
        data = mutated(generator, generator.choice(list(kinds.values())))
        try:
            stored, height, width = fit_jpeg(data, "x.jpg", 0, 500, 90)
        except BadSampleError as error:
            assert str(error).startswith("x.jpg: ") and "\n" not in str(error), number
            outcomes["refused"] += 1
            continue
        assert examine_jpeg(stored) == (stored, True, None), number
        outcomes["stored" if data.startswith(stored) else "encoded"] += 1
        pixels = pillow(stored)
        assert pixels.shape == (height, width, 3), number
        if data.startswith(stored):
            assert np.array_equal(fit_rgb(data, "", 0, 500), pixels), number
        assert np.array_equal(simplejpeg.decode_jpeg(stored, "RGB"), pixels), number
    assert all(count > NUM_FUZZED / 20 for count in outcomes.values()), outcomes


def test_a_refused_file_does_not_disturb_the_next() -> None:
    """libturbojpeg 2.1 went on in the middle of the headers that it had refused before."""
    data = PLAIN["4:2:0"]
    for size in range(2, 600, 40):
        with pytest.raises(BadSampleError):
            decode_sound(data[:size], "")
        examine_jpeg(data[:size] + b"\xff\xd9")
        assert examine_jpeg(data) == (data, True, None)


def test_an_orientation_is_kept_in_a_stored_file_and_applied_to_an_encoded_one() -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(PLAIN["4:2:0"])).save(buffer, "JPEG", exif=tags)
    assert fit_jpeg(buffer.getvalue(), "", 0, 500, 90)[0] == buffer.getvalue()
    assert fit_jpeg(buffer.getvalue(), "", 0, 500, 90, exif="apply")[1:] == (56, 40)
    upright = decode_rgb(buffer.getvalue(), "", exif="apply")
    assert np.array_equal(fit_rgb(buffer.getvalue(), "", 0, 500, exif="apply"), upright)

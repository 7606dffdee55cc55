"""Odd image files, and files that are not images, against Pillow and torchvision."""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, JpegImagePlugin

from fixres.pipelines.images.codec import decode_rgb, fit_jpeg, fit_rgb, image_size
from fixres.pipelines.images.input_formats import MAX_PIXELS
from fixres.pipelines.roc.encoder import fit_roc
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import BadSampleError, InputError
from tests.coded import coded_image, jpeg
from tests.pipelines.images.odd import (
    CODED,
    HEIGHT,
    WIDTH,
    bad,
    by_torchvision,
    encoded,
    png,
    see_through,
)

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest undoes the filter that the module sets
ROOT = Path(__file__).resolve().parents[3]


def arithmetic() -> bytes:
    """An arithmetic-coded JPEG, which Pillow cannot write."""
    try:
        library = ctypes.CDLL("libturbojpeg.so.0")
    except OSError:
        pytest.skip("libturbojpeg is not here to write an arithmetic-coded JPEG")
    library.tjInitCompress.restype = ctypes.c_void_p
    pixels, out, size = np.ascontiguousarray(CODED), ctypes.c_void_p(), ctypes.c_ulong()
    os.environ["TJ_ARITHMETIC"] = "1"
    try:
        library.tjCompress2(
            ctypes.c_void_p(library.tjInitCompress()),
            ctypes.c_void_p(pixels.ctypes.data),
            *(WIDTH, 0, HEIGHT, 0),
            ctypes.byref(out),
            ctypes.byref(size),
            *(0, 95, 0),
        )
    finally:
        del os.environ["TJ_ARITHMETIC"]
    data = ctypes.string_at(out, size.value)
    assert b"\xff\xc9" in data and b"\xff\xc0" not in data
    return data


def test_an_arithmetic_coded_jpeg_is_encoded_again() -> None:
    data = arithmetic()
    stored, *size = fit_jpeg(data, "x", 0, 500, 95)
    assert stored.count(b"\xff\xc0") == 1 and b"\xff\xc9" not in stored and size == [HEIGHT, WIDTH]
    assert np.abs(decode_rgb(stored, "x").astype(int) - np.asarray(CODED)).mean() < 4


def test_progressive_jpeg_passes_and_is_baseline_in_roc() -> None:
    data = encoded(CODED, "JPEG", progressive=True)
    assert fit_jpeg(data, "x", 0, 500, 90)[0] is data
    with Image.open(io.BytesIO(fit_roc(data, "x", 0, 500, 90)[0])) as image:
        assert "progressive" not in image.info


def test_too_many_scans_are_refused() -> None:
    data = encoded(CODED, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert decode_rgb(data[:-2] + data[last:-2] * 400 + data[-2:], "x").shape == (HEIGHT, WIDTH, 3)
    assert "more than 500 scans" in bad(data[:-2] + data[last:-2] * 600 + data[-2:])


def test_bytes_after_the_image_are_ignored() -> None:
    data, other = jpeg(np.asarray(CODED)), jpeg(coded_image(90, 30, 5))
    for rest in (b"\0" * 100, b"\xff", other, other[:50]):
        assert np.array_equal(decode_rgb(data + rest, "x"), decode_rgb(data, "x"))
        assert fit_jpeg(data + rest, "x", 0, 500, 90)[0] == data
    several = encoded(CODED, "MPO", save_all=True, append_images=[CODED.rotate(180)], quality=95)
    for max_side in (500, 8):
        stored, *_ = fit_jpeg(several, "x", 0, max_side, 95)
        assert stored != several and stored.count(b"\xff\xd8") == 1
    assert np.abs(decode_rgb(stored, "x")[0, 0].astype(int) - [0, 0, 112]).max() < 60
    assert "cannot be decoded" in bad(b"\xff\xd8" + data)


def test_one_pixel() -> None:
    for data in (jpeg(np.full((1, 1, 3), 77, np.uint8)), encoded(Image.new("RGB", (1, 1), (77,) * 3), "PNG")):
        assert fit_jpeg(data, "x", 0, 8, 90)[1:] == (1, 1)
        image, *size, _ = fit_roc(data, "x", 0, 8, 90)
        assert size == [1, 1] and np.abs(decode_rgb(image, "x").astype(int) - 77).max() <= 2


def test_panorama() -> None:
    data = jpeg(coded_image(500, 20_000, 2))
    for image, *size in (fit_jpeg(data, "x", 0, 500, 95), fit_roc(data, "x", 0, 500, 95)[:3]):
        assert size == [12, 500] == list(image_size(image, "x"))
        assert np.abs(decode_rgb(image, "x").astype(int) - coded_image(12, 500, 2)).mean() < 5


def photograph(height: int, width: int) -> Image.Image:
    """Noise of all scales: each octave is half as strong as the next coarser one."""
    random, image = np.random.default_rng(1), np.zeros((height, width, 3))
    for octave in range(7):
        small = random.normal(0, 40 / 2 ** (6 - octave), (height >> octave, width >> octave, 3))
        for channel in range(3):
            layer = Image.fromarray(small[..., channel].astype(np.float32))
            image[..., channel] += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((image + 128).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("max_side", [60, 120, 200, 300])
def test_reduced_decoding_is_as_good(max_side: int) -> None:
    data = encoded(photograph(641, 963), "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        size = (max_side, round(641 * max_side / 963))
        wanted = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), float)
    error = np.asarray(fit_rgb(data, "x", 0, max_side), float) - wanted
    assert error.shape == wanted.shape
    assert 10 * np.log10(255**2 / max(np.square(error).mean(), 1e-9)) > 45


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(8, 80))
def test_decodes_at_least_the_pixels_that_are_kept(height: int, width: int, max_side: int) -> None:
    decoded = []

    class Spy(JpegImagePlugin.JpegImageFile):
        def load(self) -> object:
            decoded.append(self.size)
            return super().load()

    data = encoded(Image.new("RGB", (width, height)), "JPEG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Image.OPEN, "JPEG", (Spy, Image.OPEN["JPEG"][1]))
        kept = fit_rgb(data, "x", 0, max_side).size
    assert max(kept) == min(max_side, max(height, width))
    fits = max(height, width) <= max_side  # and is decoded by simplejpeg
    assert fits or decoded[0] == (width, height) or all(d >= 3 * k for d, k in zip(decoded[0], kept, strict=True))


@pytest.mark.parametrize("size", [(50_000, 50_000), (12_000, 12_000), (2**31 - 1, 1), (65_500, 65_500)])
def test_decompression_bombs_are_refused_before_memory_is_allocated(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    files = [png(*size, 1, 0, bytes(1000))]
    if size[0] == 65_500:
        small = jpeg(coded_image(16, 16))
        at = small.index(b"\xff\xc0") + 5
        files.append(small[:at] + struct.pack(">HH", *size) + small[at + 4 :])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("pixels were loaded"))
    for data in files:
        assert len(data) < 2000
        assert re.search(rf"has ({size[0] * size[1]}|{size[0]} x {size[1]}) pixels, {MAX_PIXELS} are", bad(data))
        with pytest.raises(BadSampleError, match="are allowed"):
            image_size(data, "x")


def test_pillows_warnings_are_hidden() -> None:
    """Of more pixels than are allowed here, and of alpha in palettes."""
    script = """
import sys
from fixres.pipelines.images.codec import decode_rgb, image_size
sys.excepthook = lambda *error: print(error[1])
large, palette = sys.stdin.buffer.read().split(b"|cut|")
print(decode_rgb(palette, "x").shape)
image_size(large, "x")
"""
    large, palette = png(12_000, 10_000, 1, 0, bytes(1000)), see_through()["palette, alpha for each"]
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, input=large + b"|cut|" + palette, capture_output=True, timeout=120, cwd=ROOT)
    shape, message = done.stdout.decode().splitlines()
    assert shape == f"({HEIGHT}, {WIDTH}, 3)" and "x: has 12000 x 10000 pixels" in message
    assert done.stderr == b""
    unguarded = "import io, sys; from PIL import Image; Image.open(io.BytesIO(sys.stdin.buffer.read()))"
    done = subprocess.run([sys.executable, "-c", unguarded], input=large, capture_output=True, timeout=120)
    assert b"DecompressionBombWarning" in done.stderr  # else the test above could not fail


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_used(kind: str, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], duration=50, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    wanted = np.broadcast_to(np.uint8([255, 0, 0]), (HEIGHT, WIDTH, 3))
    assert np.array_equal(decode_rgb(data, "x"), wanted)
    assert np.array_equal(decode_rgb(data, "x"), by_torchvision(data, tmp_path))
    assert fit_jpeg(data, "x", 0, 500, 90)[1:] == (HEIGHT, WIDTH)


def test_files_that_are_not_images_are_reported() -> None:
    assert bad(b"") == "x: the file is empty; replace or remove it"
    assert "a web page (HTML)" in bad(b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>404</body></html>")
    assert "a web page (HTML)" in bad(b"<HTML>\n")
    assert "none of JPEG, PNG" in bad(b"\0" * 1000)
    assert "cannot be decoded" in bad(b"P6\n0 5\n255\n")


def test_programs_named_like_images_are_not_run() -> None:
    """Pillow reads PostScript and would start Ghostscript for it."""
    data = encoded(CODED, "EPS")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "EPS"
    assert "none of JPEG" in bad(data)


NAMES = {
    "with space.jpg": "with space.jpg",
    "line\nbreak.jpg": r"line\nbreak.jpg",
    "tab\tescape\x1b[2J.jpg": r"tab\tescape\x1b[2J.jpg",
    "ünï 日本 🙂.jpg": "ünï 日本 🙂.jpg",
    "\x85\u2028\u202egpj.jpg": r"\x85\u2028\u202egpj.jpg",
}


@pytest.mark.parametrize("name", NAMES)
def test_messages_stay_one_printable_line(name: str, tmp_path: Path) -> None:
    for data in (b"", b"no image", jpeg(np.asarray(CODED))[:300], png(50_000, 50_000, 1, 0, b"")):
        message = bad(data, name)
        assert message.startswith(NAMES[name] + ": ") and message.isprintable()
        again = pickle.loads(pickle.dumps(BadSampleError(message, 3)))
        assert (str(again), again.index) == (message, 3)
    folder = tmp_path / "a class"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "nowhere")
    source = open_source(tmp_path)
    with pytest.raises(BadSampleError, match="cannot be read") as caught:
        source.read(0)
    assert str(caught.value).isprintable()


def test_names_that_are_not_utf8_can_be_written_back() -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    assert str(InputError(name)).encode(errors="surrogateescape") == b"caf\xe9\\n.jpg"


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "x.jpg").mkdir(parents=True)
    (tmp_path / "a" / "x.jpg" / "y.jpg").write_bytes(jpeg(np.asarray(CODED)))
    source = open_source(tmp_path)
    assert [Path(source.name(i)).name for i in range(len(source))] == ["y.jpg"]

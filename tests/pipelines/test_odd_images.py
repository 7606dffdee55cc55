"""Odd image files: what is in them is known from how they are made here, or from Pillow and torchvision."""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo
from torchvision.datasets.folder import default_loader

from pipelines.image_files import MAX_PIXELS
from pipelines.images import check_fit, decode_rgb, fit_jpeg, fit_rgb, image_size
from pipelines.roc.encode import fit_roc
from pipelines.sources import open_source
from pipelines.spec import BadSampleError, InputError
from tests.coded import coded_image, jpeg

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest undoes the filter that the module sets
ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 40, 56
CODED = Image.fromarray(coded_image(HEIGHT, WIDTH, 3))
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file by hand, for what Pillow does not write: `rows` are those of the image, each with its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def tiff(values: list[int], bits: int, packed: bytes, **tags: int) -> bytes:
    """A grey TIFF file of one row by hand."""
    entries = {256: len(values), 257: 1, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    entries |= {int(key[1:]): value for key, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + packed


def by_torchvision(data: bytes, folder: Path) -> np.ndarray:
    (folder / "image").write_bytes(data)
    return np.asarray(default_loader(str(folder / "image")))


def bad(data: bytes, name: str = "x") -> str:
    """The message with which all entries refuse the data."""
    messages = set()
    for call in (decode_rgb, lambda *a: fit_jpeg(*a, 500, 90), lambda *a: fit_roc(*a, 500, 90)):
        with pytest.raises(BadSampleError) as caught:
            call(data, name, 7)
        assert caught.value.index == 7
        messages.add(str(caught.value))
    assert len(messages) == 1
    return messages.pop()


# ---- colour


def inks(*cmyk: int) -> np.ndarray:
    """What the inks (0 to 255) leave of the light: RGB."""
    return np.rint([(255 - ink) * (255 - cmyk[3]) / 255 for ink in cmyk[:3]])


def four_channels(samples: tuple[int, ...], transform: int) -> bytes:
    """A JPEG file of one colour whose four stored components have these values, under Adobe's marker."""
    inverted = tuple(255 - sample for sample in samples)  # Pillow's writer inverts
    data = encoded(Image.new("CMYK", (16, 16), inverted), "JPEG", quality=100)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return data[:at] + bytes([transform]) + data[at + 1 :]


@pytest.mark.parametrize("cmyk", [(0, 0, 0, 0), (0, 0, 0, 255), (200, 40, 90, 30), (10, 250, 0, 100)])
def test_cmyk_and_ycck_jpeg(cmyk: tuple[int, ...], tmp_path: Path) -> None:
    c, m, y, k = cmyk
    light, blue, red = (
        0.299 * c + 0.587 * m + 0.114 * y,
        128 - 0.168736 * c - 0.331264 * m + 0.5 * y,
        128 + 0.5 * c - 0.418688 * m - 0.081312 * y,
    )
    ycck = tuple(min(255, round(v)) for v in (light, blue, red, 255 - k))
    for samples, transform in ((tuple(255 - ink for ink in cmyk), 0), (ycck, 2)):
        data = four_channels(samples, transform)
        image = decode_rgb(data, "x")
        assert np.abs(image.astype(int) - inks(*cmyk)).max() <= 4
        assert np.array_equal(image, by_torchvision(data, tmp_path))
        stored, *_ = fit_jpeg(data, "x", 0, 500, 95)
        with Image.open(io.BytesIO(stored)) as reopened:
            assert reopened.mode == "RGB"
        assert np.abs(decode_rgb(stored, "x").astype(int) - inks(*cmyk)).max() <= 5


LEVELS = np.array([0, 1, 255, 256, 0x1234, 0x80FF, 0xFEFF, 0xFFFF], np.uint16)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)], ids=["L", "LA", "RGB", "RGBA"])
def test_png_of_16_bits_keeps_the_high_byte(colour: int, channels: int) -> None:
    pixels = np.stack([np.roll(LEVELS, k) for k in range(channels)], -1)
    data = png(len(LEVELS), 1, 16, colour, b"\0" + pixels.astype(">u2").tobytes())
    wanted = (pixels >> 8)[None, :, [0, 0, 0] if channels < 3 else [0, 1, 2]]
    assert np.array_equal(decode_rgb(data, "x"), wanted)
    if channels < 3:
        assert np.abs(decode_rgb(fit_roc(data, "x", 0, 500, 100)[0], "x").astype(int) - wanted).max() < 4


def test_other_files_of_more_than_8_bits() -> None:
    wanted = np.repeat((LEVELS >> 8)[None, :, None], 3, axis=2)
    grey = Image.fromarray(LEVELS[None])
    for data in (
        encoded(grey, "TIFF"),
        encoded(grey, "PPM"),
        encoded(grey, "JPEG2000"),
        tiff([0] * 8, 16, LEVELS.tobytes()),
    ):
        assert np.array_equal(decode_rgb(data, "x"), wanted)
    twelve = tiff([0, 0x123, 0xABC, 0xFFF], 12, bytes.fromhex("000123abcfff"))
    assert decode_rgb(twelve, "x")[0, :, 0].tolist() == [0, 0x12, 0xAB, 0xFF]


def test_numbers_without_a_white_are_refused() -> None:
    assert "what is white" in bad(tiff([0] * 4, 32, struct.pack("<4I", 0, 1, 2, 3)))
    assert "what is white" in bad(tiff([0] * 4, 16, struct.pack("<4h", 0, 100, -5, 300), t339=2))
    assert "what is white" in bad(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


def see_through() -> dict[str, bytes]:
    alpha = Image.fromarray(coded_image(HEIGHT, WIDTH)[..., 0])
    rgba, la = CODED.convert("RGBA"), CODED.convert("L").convert("LA")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    palette = CODED.quantize(16)
    return {
        "rgba": encoded(rgba, "PNG"),
        "la": encoded(la, "PNG"),
        "webp": encoded(rgba, "WEBP", lossless=True, exact=True),
        "palette, one colour": encoded(palette, "PNG", transparency=3),
        "palette, alpha for each": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "grey, one level": encoded(CODED.convert("L"), "PNG", transparency=7),
        "gif": encoded(palette, "GIF", transparency=3),
    }


@pytest.mark.parametrize("kind", see_through())
def test_transparency_is_dropped_as_torchvision_does(kind: str, tmp_path: Path) -> None:
    data = see_through()[kind]
    image = decode_rgb(data, "x")
    assert np.array_equal(image, by_torchvision(data, tmp_path))
    wanted = CODED.quantize(16) if "palette" in kind or kind == "gif" else CODED
    wanted = wanted.convert("L") if kind.startswith(("la", "grey")) else wanted
    assert np.array_equal(image, np.asarray(wanted.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "AVIF"])
def test_other_formats_whatever_their_name(kind: str) -> None:
    data = encoded(CODED, kind, **({"lossless": True} if kind == "WEBP" else {}))
    tolerance = 12 if kind == "AVIF" else 0
    assert np.abs(decode_rgb(data, "n01.JPEG").astype(int) - np.asarray(CODED)).max() <= tolerance
    stored, *size = fit_jpeg(data, "n01.JPEG", 0, 500, 95)
    assert stored[:3] == b"\xff\xd8\xff" and size == [HEIGHT, WIDTH]


def test_grey_and_two_colours() -> None:
    bits = Image.fromarray(np.asarray(CODED.convert("L")) > 120)
    assert bits.mode == "1"
    wanted = np.repeat((np.asarray(CODED.convert("L")) > 120)[..., None] * np.uint8(255), 3, axis=2)
    assert np.array_equal(decode_rgb(encoded(bits, "PNG"), "x"), wanted)
    grey = decode_rgb(encoded(CODED.convert("L"), "BMP"), "x")
    assert np.array_equal(grey, np.repeat(np.asarray(CODED.convert("L"))[..., None], 3, axis=2))


def test_colour_profiles_are_ignored_and_not_handed_on(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, tagged = jpeg(np.asarray(CODED)), encoded(CODED, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    assert np.array_equal(decode_rgb(tagged, "x"), decode_rgb(plain, "x"))
    assert fit_jpeg(tagged, "x", 0, 500, 90)[0] is tagged
    for image in (fit_jpeg(tagged, "x", 0, 30, 90)[0], fit_roc(tagged, "x", 0, 500, 90)[0]):
        with Image.open(io.BytesIO(image)) as stored:
            assert "icc_profile" not in stored.info and b"ICC_PROFILE" not in image


def test_texts_in_the_file_are_not_handed_on() -> None:
    text = PngInfo()
    text.add_text("comment", "private")
    stored, *_ = fit_jpeg(encoded(CODED, "PNG", pnginfo=text, exif=exif(6)), "x", 0, 500, 90)
    assert b"private" not in stored and b"Exif" not in stored
    # JPEG comments end at 65533 bytes, those of GIF files do not.
    stored, *_ = fit_jpeg(encoded(CODED.quantize(8), "GIF", comment=b"c" * 70_000), "x", 0, 500, 90)
    assert stored == fit_jpeg(encoded(CODED.quantize(8), "GIF"), "x", 0, 500, 90)[0]


# ---- orientation


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


# From the upright picture to the stored rows, after the table in the EXIF standard.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, tmp_path: Path) -> None:
    upright = coded_image(HEIGHT, WIDTH, 3)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(stored, kind, exif=exif(orientation), **options)
        assert np.array_equal(decode_rgb(data, "x", exif="apply"), upright)
        assert np.array_equal(decode_rgb(data, "x"), np.asarray(stored))
        assert np.array_equal(decode_rgb(data, "x"), by_torchvision(data, tmp_path))
    data = encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_rgb(data, "x", exif="apply"), np.asarray(ImageOps.exif_transpose(image)))
    assert fit_jpeg(data, "x", 0, 500, 95)[0] is data
    turned, *size = fit_jpeg(data, "x", 0, 500, 95, exif="apply")
    assert (turned is data) == (orientation == 1) and size == [HEIGHT, WIDTH]
    assert np.abs(decode_rgb(turned, "x", exif="apply").astype(int) - upright).mean() < 4
    for max_side in (500, 28, 8):  # 8 is decoded at half the size
        for image, *size in (
            fit_jpeg(data, "x", 0, max_side, 95, exif="apply"),
            fit_roc(data, "x", 0, max_side, 95, exif="apply")[:3],
        ):
            assert (
                size
                == list(image_size(image, "x"))
                == ([HEIGHT, WIDTH] if max_side == 500 else [round(max_side * 5 / 7), max_side])
            )
            corner = decode_rgb(image, "x")[0, 0].astype(int)
            assert np.abs(corner - upright[0, 0]).max() < 60  # red and green rise from here to 255


def test_orientation_of_tiff_is_pillows(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(np.rot90(coded_image(HEIGHT, WIDTH)).copy()), "TIFF", exif=exif(6))
    for option in ("ignore", "apply"):
        assert np.array_equal(decode_rgb(data, "x", exif=option), by_torchvision(data, tmp_path))
        assert fit_rgb(data, "x", 0, 28, exif=option).size == (28, 20)


@pytest.mark.parametrize(
    "body", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0rubbish", exif(0), exif(9), exif(77)]
)
def test_exif_without_sense_is_upright(body: bytes) -> None:
    data = encoded(CODED, "JPEG", exif=body)
    assert fit_jpeg(data, "x", 0, 500, 90, exif="apply")[0] is data


def test_unknown_exif_option_is_named() -> None:
    with pytest.raises(InputError, match="exif='yes' must be one of ignore, apply"):
        check_fit(500, 90, exif="yes")


# ---- kinds of JPEG


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


def test_arithmetic_coded_jpeg_is_coded_anew() -> None:
    data = arithmetic()
    stored, *size = fit_jpeg(data, "x", 0, 500, 95)
    assert stored.count(b"\xff\xc0") == 1 and b"\xff\xc9" not in stored and size == [HEIGHT, WIDTH]
    assert np.abs(decode_rgb(stored, "x").astype(int) - np.asarray(CODED)).mean() < 4


def test_progressive_jpeg_passes_and_is_baseline_in_roc() -> None:
    data = encoded(CODED, "JPEG", progressive=True)
    assert fit_jpeg(data, "x", 0, 500, 90)[0] is data
    with Image.open(io.BytesIO(fit_roc(data, "x", 0, 500, 90)[0])) as image:
        assert "progressive" not in image.info


def test_endless_scans_are_refused() -> None:
    data = encoded(CODED, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert decode_rgb(data[:-2] + data[last:-2] * 400 + data[-2:], "x").shape == (HEIGHT, WIDTH, 3)
    assert "more than 500 scans" in bad(data[:-2] + data[last:-2] * 600 + data[-2:])


def test_what_follows_the_picture_does_not_matter() -> None:
    data, other = jpeg(np.asarray(CODED)), jpeg(coded_image(90, 30, 5))
    for rest in (b"\0" * 100, b"\xff", other, other[:50]):
        assert np.array_equal(decode_rgb(data + rest, "x"), decode_rgb(data, "x"))
        assert fit_jpeg(data + rest, "x", 0, 500, 90)[0] == data + rest
    several = encoded(CODED, "MPO", save_all=True, append_images=[CODED.rotate(180)], quality=95)
    for max_side in (500, 8):
        stored, *_ = fit_jpeg(several, "x", 0, max_side, 95)
        assert stored != several and stored.count(b"\xff\xd8") == 1
    assert np.abs(decode_rgb(stored, "x")[0, 0].astype(int) - [0, 0, 112]).max() < 60
    assert "cannot be decoded" in bad(b"\xff\xd8" + data)


# ---- sizes


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
def test_decoding_fewer_pixels_is_as_good(max_side: int) -> None:
    data = encoded(photograph(641, 963), "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        size = (max_side, round(641 * max_side / 963))
        wanted = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), float)
    error = np.asarray(fit_rgb(data, "x", 0, max_side), float) - wanted
    assert error.shape == wanted.shape
    assert 10 * np.log10(255**2 / max(np.square(error).mean(), 1e-9)) > 45


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(8, 80))
def test_never_fewer_pixels_than_are_kept(height: int, width: int, max_side: int) -> None:
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
    assert decoded[0] == (width, height) or all(d >= 3 * k for d, k in zip(decoded[0], kept, strict=True))


@pytest.mark.parametrize("size", [(50_000, 50_000), (12_000, 12_000), (2**31 - 1, 1), (65_500, 65_500)])
def test_bombs_are_refused_before_memory_is_taken(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    files = [png(*size, 1, 0, bytes(1000))]
    if size[0] == 65_500:
        small = jpeg(coded_image(16, 16))
        at = small.index(b"\xff\xc0") + 5
        files.append(small[:at] + struct.pack(">HH", *size) + small[at + 4 :])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("pixels were loaded"))
    for data in files:
        assert len(data) < 2000
        assert f"{MAX_PIXELS} are allowed" in bad(data)
        with pytest.raises(BadSampleError, match="are allowed"):
            image_size(data, "x")


def test_no_warnings_of_pillow_reach_the_user() -> None:
    """12000 x 10000 pixels are fewer than our limit and more than Pillow warns of; likewise alpha in palettes."""
    script = """
import sys
from pipelines.images import decode_rgb, image_size
large, palette = sys.stdin.buffer.read().split(b"|cut|")
print(image_size(large, "x"), decode_rgb(palette, "x").shape)
"""
    large, palette = png(12_000, 10_000, 1, 0, bytes(1000)), see_through()["palette, alpha for each"]
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, input=large + b"|cut|" + palette, capture_output=True, timeout=120, cwd=ROOT)
    assert done.stdout.decode() == f"(10000, 12000) ({HEIGHT}, {WIDTH}, 3)\n"
    assert done.stderr == b""
    unguarded = "import io, sys; from PIL import Image; Image.open(io.BytesIO(sys.stdin.buffer.read()))"
    done = subprocess.run([sys.executable, "-c", unguarded], input=large, capture_output=True, timeout=120)
    assert b"DecompressionBombWarning" in done.stderr  # else the test above could not fail


# ---- animations, and what is no image


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_picture_of_an_animation_counts(kind: str, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], duration=50, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    wanted = np.broadcast_to(np.uint8([255, 0, 0]), (HEIGHT, WIDTH, 3))
    assert np.array_equal(decode_rgb(data, "x"), wanted)
    assert np.array_equal(decode_rgb(data, "x"), by_torchvision(data, tmp_path))
    assert fit_jpeg(data, "x", 0, 500, 90)[1:] == (HEIGHT, WIDTH)


def test_what_is_no_image_is_named() -> None:
    assert bad(b"") == "x: the file is empty; replace or remove it"
    assert "a web page (HTML)" in bad(b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>404</body></html>")
    assert "a web page (HTML)" in bad(b"<HTML>\n")
    assert "none of JPEG, PNG" in bad(b"\0" * 1000)
    assert "cannot be decoded" in bad(b"P6\n0 5\n255\n")


def test_programs_in_pictures_clothing_are_not_run() -> None:
    """Pillow knows PostScript, and would start Ghostscript for it."""
    data = encoded(CODED, "EPS")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "EPS"
    assert "none of JPEG" in bad(data)


NAMES = ["with space.jpg", "line\nbreak.jpg", "tab\tescape\x1b[2J.jpg", "ünï 日本 🙂.jpg", "\x85\u2028\u202egpj.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_messages_stay_one_printable_line(name: str, tmp_path: Path) -> None:
    for data in (b"", b"no image", jpeg(np.asarray(CODED))[:300], png(50_000, 50_000, 1, 0, b"")):
        message = bad(data, name)
        assert (
            message.isprintable() and len(message.splitlines()) == 1 and message.startswith(name[:3].split("\x85")[0])
        )
        again = pickle.loads(pickle.dumps(BadSampleError(message, 3)))
        assert (str(again), again.index) == (message, 3)
    folder = tmp_path / "a class"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "nowhere")
    source = open_source(tmp_path)
    with pytest.raises(BadSampleError, match="cannot be read") as caught:
        source.read(0)
    assert str(caught.value).isprintable()


def test_names_that_are_no_text_can_be_written_back() -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    assert str(InputError(name)).encode(errors="surrogateescape") == b"caf\xe9\\n.jpg"


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "x.jpg").mkdir(parents=True)
    (tmp_path / "a" / "x.jpg" / "y.jpg").write_bytes(jpeg(np.asarray(CODED)))
    source = open_source(tmp_path)
    assert [Path(source.name(i)).name for i in range(len(source))] == ["y.jpg"]

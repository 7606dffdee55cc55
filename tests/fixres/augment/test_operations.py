"""Each operation against timm's and torchvision's on Pillow's images, compiled and with torch's operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import timm.data.auto_augment as timm_operations
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide

from fixres.augment import operation_kernels, operations, tensor_operations
from fixres.augment.operations import OPERATIONS, POSITION, Program, applied

_FILL = (124, 116, 104)
_FACTORS = [0.1, 0.5, 1.0, 1.37, 1.99]
_TURNS = [-30, 90, 17.3, 3.1]
_SHEARS = [-0.3, 0.99, 0.111]
_SHIFTS = [-8.3, 0, 5, 12.7, 50]

_BY_VALUE: dict[str, tuple[Callable[..., Image.Image], list[float]]] = {
    "AutoContrast": (timm_operations.auto_contrast, [0]),
    "Equalize": (timm_operations.equalize, [0]),
    "Invert": (timm_operations.invert, [0]),
    "Posterize": (lambda image, bits: timm_operations.posterize(image, int(bits)), [1, 3, 4, 8]),
    "Solarize": (timm_operations.solarize, [0, 37, 152.9999, 153, 256]),
    "SolarizeAdd": (lambda image, add: timm_operations.solarize_add(image, int(add)), [0, 66, 110]),
    "Brightness": (timm_operations.brightness, _FACTORS),
    "Contrast": (timm_operations.contrast, _FACTORS),
    "Color": (timm_operations.color, _FACTORS),
    "Sharpness": (timm_operations.sharpness, _FACTORS),
    "GaussianBlur": (timm_operations.gaussian_blur, [0.1, 0.5, 1.3, 2, 4.7]),
}
_BY_PLACE = {
    "Rotate": (timm_operations.rotate, _TURNS),
    "ShearX": (timm_operations.shear_x, _SHEARS),
    "ShearY": (timm_operations.shear_y, _SHEARS),
    "TranslateX": (timm_operations.translate_x_abs, _SHIFTS),
    "TranslateY": (timm_operations.translate_y_abs, _SHIFTS),
}
_RESAMPLING = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def _images(height: int = 40, width: int = 33) -> torch.Tensor:
    """Noise, dark and low in contrast, of one color, of two values, a ramp of coordinates."""
    images = np.random.default_rng(0).integers(0, 256, (6, height, width, 3), np.uint8)
    images[1] = images[1] // 3 + 40
    images[2] = 77
    images[3] = np.where(images[3] > 200, 250, 3)
    images[4, ..., 0], images[4, ..., 1] = 6 * np.arange(height)[:, None], 7 * np.arange(width)
    images[5] = np.asarray(Image.fromarray(images[5, :5, :5]).resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(images)


@pytest.fixture(params=[operation_kernels, tensor_operations], ids=["compiled", "torch"])
def _primitives(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_primitives", lambda _: request.param)


def _apply(images: torch.Tensor, name: str, argument: float, mode: int = 0, fill: tuple = _FILL) -> np.ndarray:
    shape = (len(images), 1)
    program = Program(np.full(shape, POSITION[name]), np.full(shape, float(argument)), np.full(shape, mode), fill)
    return applied(images, program).numpy()


def _difference(ours: np.ndarray, images: torch.Tensor, reference: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    theirs = np.stack([np.asarray(reference(Image.fromarray(image))) for image in images.numpy()])
    return np.abs(ours.astype(int) - theirs)


def test_the_tables_above_have_all_operations() -> None:
    assert set(OPERATIONS) == set(_BY_VALUE) | set(_BY_PLACE)


@pytest.mark.usefixtures("_primitives")
@pytest.mark.parametrize("name", _BY_VALUE)
def test_operations_on_values_are_timms(name: str) -> None:
    (reference, arguments), images = _BY_VALUE[name], _images()
    for argument in arguments:
        ours = _apply(images, name, argument)
        off = _difference(
            ours, images, lambda image, a=argument: reference(image, *([a] if len(arguments) > 1 else []))
        )
        assert off.max() <= (1 if name == "GaussianBlur" else 0), argument
        assert off.mean() < 0.001


@pytest.mark.usefixtures("_primitives")
@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize("name", _BY_PLACE)
def test_operations_on_places_are_timms(name: str, mode: int) -> None:
    (reference, arguments), images = _BY_PLACE[name], _images()
    for argument in arguments:
        ours = _apply(images, name, argument, mode)
        off = _difference(
            ours, images, lambda image, a=argument: reference(image, a, fillcolor=_FILL, resample=_RESAMPLING[mode])
        )
        assert off.max() <= (0 if mode == 0 else 1), argument
        # Pillow cuts off digits: at 90 degrees it returns values a level below those of the image itself.
        assert off.mean() < (0.1 if argument == 90 else 0.02)


@pytest.mark.parametrize(
    ("name", "magnitude", "argument"),
    [
        ("ShearX", 0.33, 0.33),
        ("ShearY", -0.33, -0.33),
        ("TranslateX", 6.0, -6),
        ("TranslateY", -4.0, 4),
        ("Rotate", 36.0, 36),
        ("Brightness", -0.4, 0.6),
        ("Color", 0.4, 1.4),
        ("Contrast", 0.7, 1.7),
        ("Sharpness", -0.99, 0.01),
        ("Posterize", 3.0, 3),
        ("Solarize", 0.5, 127.5),
        ("AutoContrast", 0.0, 0),
        ("Equalize", 0.0, 0),
    ],
)
def test_operations_are_torchvisions(name: str, magnitude: float, argument: float) -> None:
    images, wide = _images(), TrivialAugmentWide()
    for mode, interpolation in enumerate([InterpolationMode.NEAREST, InterpolationMode.BILINEAR]):
        ours = _apply(images, name, argument, mode, (0, 0, 0))
        arguments = (name, magnitude, interpolation, {Image.Image: None})
        off = _difference(ours, images, lambda image, a=arguments: wide._apply_image_or_video_transform(image, *a))
        assert off.max() <= 1 and off.mean() < 0.02


@pytest.mark.usefixtures("_primitives")
def test_no_bits_are_a_black_image() -> None:
    assert not _apply(_images(), "Posterize", 0).any()


@pytest.mark.usefixtures("_primitives")
@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_images(side: int) -> None:
    images = _images(side, side)
    for name, (reference, arguments) in _BY_VALUE.items():
        ours = _apply(images, name, arguments[-1])
        off = _difference(ours, images, lambda image, f=reference, a=arguments: f(image, *a[1:][-1:]))
        assert off.max() <= 1, name


@pytest.mark.usefixtures("_primitives")
def test_images_of_a_batch_have_their_own_operations_one_after_another() -> None:
    images = _images()
    before = images.clone()
    names = [
        ["Invert", "Rotate"],
        ["Rotate", "Invert"],
        ["", "Color"],
        ["Equalize", "Sharpness"],
        ["", ""],
        ["ShearX", ""],
    ]
    ops = np.array([[POSITION.get(name, -1) for name in row] for row in names])
    arguments = np.array([[0, 30], [-30, 0], [0, 0.2], [0, 1.7], [0, 0], [0.2, 0]])
    ours = applied(images, Program(ops, arguments, np.full((6, 2), 2), _FILL)).numpy()
    assert torch.equal(images, before)
    for k in range(6):
        alone = images[k : k + 1]
        for name, argument in zip(names[k], arguments[k], strict=True):
            alone = torch.from_numpy(_apply(alone, name, argument, 2)) if name else alone
        assert (ours[k] == alone[0].numpy()).all()
    assert (ours[0] != ours[1]).any()


def test_any_number_of_threads_makes_the_same_batch() -> None:
    images, num_threads = _images(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = _apply(images, "Equalize", 0)
        torch.set_num_threads(4)
        assert (_apply(images, "Equalize", 0) == one).all()
    finally:
        torch.set_num_threads(num_threads)


def test_batches_that_are_views() -> None:
    images = _images()
    turned = images.transpose(1, 2)
    assert (_apply(turned[:, ::2], "Sharpness", 1.7) == _apply(turned[:, ::2].contiguous(), "Sharpness", 1.7)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_gpu_makes_the_same_images_and_the_host_does_not_wait(name: str) -> None:
    images = _images()
    there = images.cuda()
    for argument in ({**_BY_VALUE, **_BY_PLACE}[name][1])[:3]:
        shape = (len(images), 1)
        program = Program(np.full(shape, POSITION[name]), np.full(shape, float(argument)), np.full(shape, 2), _FILL)
        applied(there, program)  # allocates
        torch.cuda.set_sync_debug_mode("error")
        try:
            result = applied(there, program)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert (result.cpu().int() - applied(images, program).int()).abs().max() <= 1

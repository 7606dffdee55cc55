"""The operations of AutoAugment and its successors, image by image on a batch: name, argument, how it is applied.

Each operation with its argument is that of `timm.data.auto_augment` and of torchvision's transforms on Pillow's images.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixres.augment import operation_kernels, tensor_operations
from fixres.augment.tensor_operations import on_device

_Parameters = Callable[[Tensor, np.ndarray, np.ndarray], Tensor | np.ndarray]
"""From a batch, the positions of chosen images and their arguments: parameters of each of these images."""


class Program(NamedTuple):
    """What is done to each image of a batch, one operation after another.

    Attributes:
        operations: int64 (B, L), positions in `OPERATIONS`; -1 leaves the image alone.
        arguments: float64 (B, L); see `OPERATIONS`.
        modes: int64 (B, L): 0 nearest, 1 bilinear, 2 bicubic, for operations that move pixels.
        fill: RGB of what these move in from outside.
    """

    operations: np.ndarray
    arguments: np.ndarray
    modes: np.ndarray
    fill: tuple[int, int, int] = (0, 0, 0)


# Tables of new values, (B or 1, 1 or 3, 256), for the images of one operation and its arguments (B, 1, 1).


def _values(images: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.float32, device=images.device)


def _autocontrast(images: Tensor, chosen: np.ndarray, _arguments: Tensor) -> Tensor:
    first, last = _ends(_primitives(images).histograms(images, chosen))
    width = (last - first).double()
    scale = torch.full_like(width, 255) / width  # 255 / width multiplies by the reciprocal, one bit off
    return torch.where(last > first, _values(images) * scale - first * scale, _values(images))


def _equalize(images: Tensor, chosen: np.ndarray, _arguments: Tensor) -> Tensor:
    counts = _primitives(images).histograms(images, chosen)
    step = (counts.sum(-1, keepdim=True) - counts.gather(2, _ends(counts)[1])) // 255
    tables = (step // 2 + counts.cumsum(-1) - counts) // step.clamp_min(1)
    return torch.where(step > 0, tables, _values(images).long())


def _ends(counts: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each channel, int64 (B, 3, 1)."""
    found = (counts > 0).int()
    return found.argmax(-1, keepdim=True), 255 - found.flip(-1).argmax(-1, keepdim=True)


def _invert(images: Tensor, _chosen: np.ndarray, _arguments: Tensor) -> Tensor:
    return 255 - _values(images)[None, None]


def _posterize(images: Tensor, _chosen: np.ndarray, bits: Tensor) -> Tensor:
    step = 2 ** (8 - bits)
    return torch.floor(_values(images) / step) * step


def _solarize(images: Tensor, _chosen: np.ndarray, thresholds: Tensor) -> Tensor:
    return torch.where(_values(images) < thresholds, _values(images), 255 - _values(images))


def _solarize_add(images: Tensor, _chosen: np.ndarray, added: Tensor) -> Tensor:
    return torch.where(_values(images) < 128, _values(images) + added, _values(images))


def _brightness(images: Tensor, _chosen: np.ndarray, factors: Tensor) -> Tensor:
    return factors.float() * _values(images)


def _contrast(images: Tensor, chosen: np.ndarray, factors: Tensor) -> Tensor:
    mean = torch.floor(_primitives(images).luma_means(images, chosen) + 0.5).float()[:, None, None]
    return mean + factors.float() * (_values(images) - mean)


def _by_table(table: Callable[[Tensor, np.ndarray, Tensor], Tensor]) -> _Parameters:
    def parameters(images: Tensor, chosen: np.ndarray, arguments: np.ndarray) -> Tensor:
        tables = table(images, chosen, on_device(arguments, images.device)[:, None, None])
        return tables.clamp(0, 255).to(torch.uint8).expand(len(chosen), 3, 256)

    return parameters


def _by_matrix(matrix: Callable[[float, int, int], list[float]]) -> _Parameters:
    def parameters(images: Tensor, _chosen: np.ndarray, arguments: np.ndarray) -> np.ndarray:
        return np.array([matrix(argument, *images.shape[1:3]) for argument in arguments], np.float64)

    return parameters


def _by_argument(_images: Tensor, _chosen: np.ndarray, arguments: np.ndarray) -> np.ndarray:
    return arguments


def _by_radius(_images: Tensor, _chosen: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return blur_weights(radii)


def blur_weights(radii: np.ndarray) -> np.ndarray:
    """int64 (B, K) for `blur`: one of three box filters that together are Pillow's GaussianBlur(radius).

    Source: Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering".
    """
    variance = radii**2 / 3
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    full = np.floor((1 << 24) / (2 * (whole + part) + 1))
    edge = ((1 << 24) - (2 * whole + 1) * full) // 2
    distance = np.arange(int(whole.max()) + 2)
    weights = np.where(distance <= whole[:, None], full[:, None], 0)
    return np.where(distance == whole[:, None] + 1, edge[:, None], weights).astype(np.int64)


def _rotation(degrees: float, height: int, width: int) -> list[float]:
    cos, sin = round(np.cos(np.radians(-degrees)), 15), round(np.sin(np.radians(-degrees)), 15)
    x, y = width / 2, height / 2
    return [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]


class Operation(NamedTuple):
    """A function of `tensor_operations` and `operation_kernels` by name, and its parameters for each chosen image."""

    function: str
    parameters: _Parameters


OPERATIONS = {
    "AutoContrast": Operation("look_up", _by_table(_autocontrast)),
    "Equalize": Operation("look_up", _by_table(_equalize)),
    "Invert": Operation("look_up", _by_table(_invert)),
    "Posterize": Operation("look_up", _by_table(_posterize)),  # bits that are kept
    "Solarize": Operation("look_up", _by_table(_solarize)),  # threshold in [0, 256]
    "SolarizeAdd": Operation("look_up", _by_table(_solarize_add)),  # levels
    "Brightness": Operation("look_up", _by_table(_brightness)),  # factor; so of the next three
    "Contrast": Operation("look_up", _by_table(_contrast)),
    "Color": Operation("blend_with_gray", _by_argument),
    "Sharpness": Operation("sharpen", _by_argument),
    "GaussianBlur": Operation("blur", _by_radius),  # radius in pixels
    "Rotate": Operation("warp", _by_matrix(_rotation)),  # degrees, counter-clockwise
    "ShearX": Operation("warp", _by_matrix(lambda factor, *_: [1, factor, 0, 0, 1, 0])),
    "ShearY": Operation("warp", _by_matrix(lambda factor, *_: [1, 0, 0, factor, 1, 0])),
    "TranslateX": Operation("warp", _by_matrix(lambda pixels, *_: [1, 0, pixels, 0, 1, 0])),  # to the left
    "TranslateY": Operation("warp", _by_matrix(lambda pixels, *_: [1, 0, 0, 0, 1, pixels])),  # upwards
}
"""All operations by name; the comments say what the argument is."""

_ALL = tuple(OPERATIONS.values())
POSITION = {name: position for position, name in enumerate(OPERATIONS)}
"""Position of an operation in `Program.operations`, by name."""
_PIECE = 4  # images that a thread takes at once; some operations take ten times as long as others


def applied(images: Tensor, program: Program) -> Tensor:
    """uint8 (B, H, W, 3): the images after the operations of `program`. The input is not changed.

    Images that go through the same function are processed together; on a CPU torch's threads share them.
    """
    images = images.clone(memory_format=torch.contiguous_format)
    num_threads = 1 if images.is_cuda else torch.get_num_threads()
    with ThreadPoolExecutor(num_threads) as pool:
        for layer in range(program.operations.shape[1]):
            work = _work(images, program, layer)
            if num_threads == 1:
                for function, chosen, parameters in work:
                    function(images, chosen, *parameters)
            else:
                list(pool.map(lambda piece: piece[0](images, piece[1], *piece[2]), _pieces(work)))
    return images


_Call = tuple[Callable[..., None], np.ndarray, list[Any]]  # function, chosen images, parameters of each of them


def _work(images: Tensor, program: Program, layer: int) -> list[_Call]:
    """The calls that apply a layer of `program`; each changes other images."""
    operations, arguments = program.operations[:, layer], program.arguments[:, layer]
    found: dict[str, list[tuple[np.ndarray, Any]]] = {}
    for operation in np.unique(operations[operations >= 0]):
        chosen = np.flatnonzero(operations == operation)
        parameters = _ALL[operation].parameters(images, chosen, arguments[chosen])
        found.setdefault(_ALL[operation].function, []).append((chosen, parameters))
    calls: list[_Call] = []
    for function, groups in found.items():
        positions, each = zip(*groups, strict=True)
        chosen = np.concatenate(positions)
        parameters = [torch.cat(each) if isinstance(each[0], Tensor) else np.concatenate(each)]
        if function == "warp":
            parameters += [program.modes[chosen, layer], np.tile(np.array(program.fill, np.uint8), (len(chosen), 1))]
        calls.append((getattr(_primitives(images), function), chosen, parameters))
    return calls


def _pieces(work: list[_Call]) -> list[_Call]:
    return [
        (function, chosen[start : start + _PIECE], [each[start : start + _PIECE] for each in parameters])
        for function, chosen, parameters in work
        for start in range(0, len(chosen), _PIECE)
    ]


def _primitives(images: Tensor) -> ModuleType:
    return tensor_operations if images.is_cuda else operation_kernels

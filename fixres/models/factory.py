"""Networks from timm, and the normalization of uint8 batches."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fixres.config.recipe import ModelConfig
from fixres.models.network_size import count_values
from fixres.models.weights import one_line
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD, InputError

_MAX_VALUES = 1 << 30  # of networks as timm has them: 4 GiB
_MAX_VALUES_WITH_ARGUMENTS = 1 << 28


def check_name(config: ModelConfig) -> None:
    """Raises InputError if timm has no such network."""
    import timm

    if not timm.is_model(config.name):
        near = ", ".join(timm.list_models(f"*{config.name[:6]}*")[:5]) or "see timm.list_models()"
        raise InputError(f"model.name={config.name!r} is not a timm model; near: {near}")


def create_model(config: ModelConfig, num_classes: int, max_values: int | None = None) -> nn.Module:
    """A timm network with random weights, in channels_last memory format.

    Args:
        config: its name and arguments.
        num_classes: outputs of the classifier.
        max_values: weights and buffers that the network may have; 2**30 if null, or 2**28 with arguments.

    Raises:
        InputError: no such network, arguments that do not fit it, or too many values.
    """
    import timm

    check_name(config)
    build = partial(timm.create_model, config.name, num_classes=num_classes, **_with_classes(config.kwargs))
    net = _built(config, build, max_values or (_MAX_VALUES_WITH_ARGUMENTS if config.kwargs else _MAX_VALUES))
    if config.init == "xavier":
        _draw_xavier(net)
    return net.to(memory_format=torch.channels_last)


def create_features(config: ModelConfig, out_indices: Sequence[int], output_stride: int | None = None) -> nn.Module:
    """timm's feature extractor of a network: its output is a list of feature maps instead of logits.

    Args:
        config: name and arguments of the network.
        out_indices: numbers of the stages, from 0 at the image, or negative from the end.
        output_stride: 8 or 16 dilates the last stages, so that feature maps have this stride at most; None leaves it.

    Raises:
        InputError: no such network, no such stages, or a network that timm does not dilate.
    """
    import timm

    check_name(config)
    stride = {} if output_stride is None else {"output_stride": output_stride}
    options = _with_classes(config.kwargs) | stride | {"features_only": True, "out_indices": tuple(out_indices)}
    advice = f"; not every network has output_stride={output_stride}, 32 dilates nothing" if stride else ""
    return _built(config, partial(timm.create_model, config.name, **options), _MAX_VALUES, " as backbone", advice)


def _built(
    config: ModelConfig, build: Callable[[], nn.Module], max_values: int, use: str = "", advice: str = ""
) -> nn.Module:
    try:
        if (found := count_values(build)) > max_values:
            raise InputError(f"{found:,} weights and buffers, of at most {max_values:,}; choose a smaller network")
        return build()
    except Exception as error:  # any kind: a network's own reaction to arguments that do not fit it
        given = f"with model.kwargs={reprlib.repr(config.kwargs)}"
        raise InputError(f"{config.name} cannot be built{use} {given} ({one_line(error)}){advice}") from error


def _with_classes(kwargs: dict[str, Any]) -> dict[str, Any]:
    """timm's ResNets take the class of a blur pooling; configurations hold its name."""
    if not isinstance(kwargs.get("aa_layer"), str):
        return kwargs
    if kwargs["aa_layer"] != "blurpool":
        raise InputError(f"model.kwargs.aa_layer={kwargs['aa_layer']!r} is unknown; use blurpool")
    from timm.layers import BlurPool2d

    return kwargs | {"aa_layer": BlurPool2d}


def _draw_xavier(net: nn.Module) -> None:
    """Convolutions and linear layers uniform in [-a, a], a = sqrt(6 / (d_in + d_out)), biases 0 (section 2.1)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Normalize(nn.Module):
    """uint8 NHWC in [0, 255] to float NCHW in channels_last, zero mean and unit deviation.

    It runs on the device, so four times fewer bytes are transferred. The permutation costs nothing: NHWC memory read as
    NCHW *is* channels_last.

    Args:
        mean: channel means in [0, 1], RGB.
        std: channel standard deviations in [0, 1], RGB.

    Raises:
        InputError: not three values each, or values in [0, 255].
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        if not (len(mean) == len(std) == 3 and all(one > 0 for one in std) and all(one <= 1 for one in mean)):
            raise InputError(f"mean={mean}, std={std}: use three shares of 1 each, and std above 0")
        self.register_buffer("shift", 255 * torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("factor", 1 / (255 * torch.tensor(std).view(1, -1, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float32 (B, 3, H, W)."""
        batch, height, width, channels = images.shape
        # By rows of pixels: torch's CPU operators take eight times as long along an inner dimension of three channels.
        shift, factor = (one.view(-1).repeat(width) for one in (self.shift, self.factor))
        rows = (images.reshape(batch * height, width * channels).float() - shift).mul_(factor)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

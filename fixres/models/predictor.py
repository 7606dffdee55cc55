"""A network that takes the loader's batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fixres.models.classes import Outputs
from fixres.models.factory import Normalize
from fixres.models.precision import Precision
from fixres.models.probe import sized
from fixres.pipelines.spec import InputError

PIXELS_OF_THREAD = 1 << 19
"""Pixels that a CPU processes at once, for each thread. Activations of many more leave the caches: larger pieces were
slower, and whole batches take several times the memory."""


def images_at_once(height: int, width: int) -> int:
    """Images of this size, in pixels, that a CPU processes at once; at least one."""
    return max(1, round(PIXELS_OF_THREAD * torch.get_num_threads() / (height * width)))


class Predictor(NamedTuple):
    """A network with its normalization, both on the device of `precision`.

    Attributes:
        outputs: those of the data's classes; None if they are all of the network's, in the data's order.
    """

    net: nn.Module
    normalize: Normalize
    precision: Precision
    outputs: Outputs | None = None

    def at(self, resolution: int) -> Predictor:
        """The predictor for images of side `resolution`; its network is a copy if the size must be set."""
        return self._replace(net=sized(self.net, resolution))

    def __call__(self, images: Tensor) -> Tensor:
        """The network's output, such as logits, for uint8 NHWC images on any device. InputError if it refuses them.

        In inference on a CPU a large batch is processed in pieces, which takes less memory and less time.
        """
        pieces = images.split(self._num_at_once(images)) if len(images) else (images,)
        outputs = [self._output(piece) for piece in pieces]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _num_at_once(self, images: Tensor) -> int:
        # BatchNorm in training depends on all images of a batch.
        is_whole = self.precision.device.type != "cpu" or self.net.training or not torch.is_inference_mode_enabled()
        return len(images) if is_whole else images_at_once(images.shape[1], images.shape[2])

    def _output(self, images: Tensor) -> Tensor:
        try:
            with self.precision.autocast():
                return self.net(self.normalize(images.to(self.precision.device, non_blocking=True)))
        except AssertionError as error:  # timm's transformers check the size with assertions
            reason = str(error).rstrip(".") or "it asserts another size"
            raise InputError(
                f"{type(self.net).__name__} cannot take images of {images.shape[1]} px ({reason}); choose another "
                "test_res"
            ) from error

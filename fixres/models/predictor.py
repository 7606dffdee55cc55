"""A network that takes the loader's batches."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fixres.models.classes import Outputs
from fixres.models.factory import Normalize
from fixres.models.precision import Precision
from fixres.pipelines.spec import InputError


class Predictor(NamedTuple):
    """A network with its normalization, both on the device of `precision`.

    Attributes:
        outputs: those of the data's classes; None if they are all of the network's, in the data's order.
    """

    net: nn.Module
    normalize: Normalize
    precision: Precision
    outputs: Outputs | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """The network's output, such as logits, for uint8 NHWC images on any device. InputError if it refuses them."""
        try:
            with self.precision.autocast():
                return self.net(self.normalize(images.to(self.precision.device, non_blocking=True)))
        except AssertionError as error:  # timm's transformers check the size with assertions
            reason = str(error).rstrip(".") or "it asserts another size"
            raise InputError(
                f"{type(self.net).__name__} cannot take images of {images.shape[1]} px ({reason}); choose another "
                "test_res"
            ) from error

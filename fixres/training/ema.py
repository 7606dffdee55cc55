"""An exponential moving average of the weights, kept beside the training."""

from __future__ import annotations

from typing import Any

from torch import nn


class Average:
    """timm's average of all weights and BatchNorm statistics of a network, with a warm-up for young averages.

    Args:
        net: what is averaged, on its device.
        decay: weight of the old average in each step, once it is old enough.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        from timm.utils import ModelEmaV3

        self._ema, self._net, self._num_steps = ModelEmaV3(net, decay=decay, use_warmup=True), net, 0

    @property
    def net(self) -> nn.Module:
        """The averaged network, in eval mode."""
        return self._ema.module

    def update(self) -> None:
        """Takes in the network after a step."""
        self._num_steps += 1
        self._ema.update(self._net, self._num_steps)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and how many updates are in them."""
        return {"net": self.net.state_dict(), "num_steps": self._num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.net.load_state_dict(state["net"])
        self._num_steps = state["num_steps"]

"""SGD as the recipe asks, and one optimization step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fixres.config.recipe import OptimConfig
from fixres.distributed.process_group import without_sync
from fixres.models.precision import Precision
from fixres.training.ema import Average


def create_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum; no weight decay on BatchNorm and biases (arXiv 1812.01187, section 3.1).

    With `decay_all` it is on all weights. The network must be on its device: on a GPU one kernel updates all weights.
    """
    from timm.optim import create_optimizer_v2

    # timm's "sgd" is Nesterov's; filter_bias_and_bn makes the group without decay.
    return create_optimizer_v2(
        net,
        opt="sgd",
        lr=0.0,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        filter_bias_and_bn=not config.decay_all,
        fused=next(net.parameters()).is_cuda,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class Stepper:
    """Backward and update with loss scaling where the precision needs it.

    Args:
        optimizer: what updates.
        precision: decides whether losses are scaled.
        accumulate: losses of so many micro-batches, as large as one another, make one update.
        average: told of each update.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        accumulate: int = 1,
        average: Average | None = None,
    ) -> None:
        self.optimizer, self.accumulate = optimizer, accumulate
        self._scaler, self._average, self._num_waiting = precision.scaler(), average, 0

    def context(self, net: nn.Module) -> AbstractContextManager:
        """Where the next batch is to be computed: only the last of an update asks other processes for gradients.

        Args:
            net: the network, from `distributed.data_parallel`.
        """
        return without_sync(net) if self._num_waiting + 1 < self.accumulate else nullcontext()

    def step(self, loss: Tensor) -> None:
        """Takes a loss (a scalar, mean over its batch), and updates if it is the last of its update."""
        if self._num_waiting == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss / self.accumulate).backward()
        self._num_waiting = (self._num_waiting + 1) % self.accumulate
        if self._num_waiting == 0:
            self._scaler.step(self.optimizer)
            self._scaler.update()
            if self._average is not None:
                self._average.update()

    def state_dict(self) -> dict[str, Any]:
        """What makes the next updates what they would be; to be asked for after an update."""
        assert self._num_waiting == 0, "gradients of an unfinished update are not kept"
        return {"optimizer": self.optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

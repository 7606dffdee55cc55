"""SGD as the recipe asks, and one optimisation step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fixres.averaging import Average
from fixres.config import OptimConfig
from fixres.hardware import Precision


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

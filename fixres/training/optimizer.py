"""The optimizer of a recipe, one optimization step, and the moving average of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fixres.config.recipe import OptimConfig
from fixres.distributed.process_group import without_sync
from fixres.models.precision import Precision

_FUSED = ("sgd", "momentum", "adamw")  # of torch; timm's own work on lists of weights


def create_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """timm's optimizer `config.opt`; no weight decay on norms and biases (arXiv 1812.01187, section 3.1).

    Nor on weights that the network excludes, such as position embeddings. With `decay_all` it is on all weights. The
    network must be on its device: on a GPU one kernel updates all weights, if the optimizer has one.
    """
    from timm.optim import create_optimizer_v2

    more: dict[str, Any] = {} if config.opt_eps is None else {"eps": config.opt_eps}
    if config.opt in _FUSED:
        more["fused"] = next(net.parameters()).is_cuda
    # timm's "sgd" is Nesterov's; filter_bias_and_bn makes the group without decay.
    return create_optimizer_v2(
        net,
        opt=config.opt,
        lr=0.0,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        filter_bias_and_bn=not config.decay_all,
        **more,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the same rate for every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class WeightEMA:
    """timm's exponential moving average of all weights and BatchNorm statistics, with EMA warm-up.

    After the warm-up `decay` is the weight of the old average in each step.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        from timm.utils import ModelEmaV3

        self._ema, self._net, self._num_steps = ModelEmaV3(net, decay=decay, use_warmup=True), net, 0

    @property
    def net(self) -> nn.Module:
        """The averaged network, in eval mode."""
        return self._ema.module

    def update(self) -> None:
        """Averages in the network's weights; to be called after each step."""
        self._num_steps += 1
        self._ema.update(self._net, self._num_steps)

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of updates."""
        return {"net": self.net.state_dict(), "num_steps": self._num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.net.load_state_dict(state["net"])
        self._num_steps = state["num_steps"]


class Stepper:
    """Backward pass and update, with loss scaling if the precision needs it.

    Args:
        optimizer: of the network.
        precision: decides whether losses are scaled.
        accumulate: micro-batches per update; all have the same size.
        ema: updated after each update.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        accumulate: int = 1,
        ema: WeightEMA | None = None,
    ) -> None:
        self.optimizer, self.precision, self.accumulate = optimizer, precision, accumulate
        self._scaler, self._ema, self._num_waiting = precision.scaler(), ema, 0

    def context(self, net: nn.Module) -> AbstractContextManager:
        """The context for computing the next batch: processes exchange gradients only in the last one of an update."""
        return without_sync(net) if self._num_waiting + 1 < self.accumulate else nullcontext()

    def step(self, loss: Tensor) -> None:
        """Takes a micro-batch's loss (a scalar, mean over the batch); updates the weights if it is the last one."""
        if self._num_waiting == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss / self.accumulate).backward()
        self._num_waiting = (self._num_waiting + 1) % self.accumulate
        if self._num_waiting == 0:
            self._scaler.step(self.optimizer)
            self._scaler.update()
            if self._ema is not None:
                self._ema.update()

    def state_dict(self) -> dict[str, Any]:
        """The state of optimizer and loss scaling; only between two updates."""
        assert self._num_waiting == 0, "gradients of an unfinished update cannot be saved"
        return {"optimizer": self.optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

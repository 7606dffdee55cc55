"""BatchNorm with statistics over the images of all processes.

Each process has a part of the batch, and plain BatchNorm normalizes with the statistics of that part. torch's
SyncBatchNorm works only on GPUs; on CPUs, for tests and for training without GPUs, ours replaces it.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fixres.distributed.process_group import all_reduce
from fixres.pipelines.spec import InputError


def synchronized(net: nn.Module, device: torch.device) -> nn.Module:
    """The network with synchronized BatchNorms, for training on `device`; unchanged in a single process."""
    if not dist.is_initialized():
        return net
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(net)
    return _on_cpu(net)


def _on_cpu(net: nn.Module) -> nn.Module:
    for name, child in net.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            if type(child) is not nn.BatchNorm2d:
                raise InputError(f"model.sync_bn: {type(child).__name__} cannot be synchronized on the CPU; use a GPU")
            setattr(net, name, SyncBatchNorm2d.of(child))
        else:
            _on_cpu(child)
    return net


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d with training statistics over the images of all processes, on any device."""

    @classmethod
    def of(cls, other: nn.BatchNorm2d) -> SyncBatchNorm2d:
        """A layer with the weights, buffers and settings of `other`."""
        made = cls(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)
        made = made.to(other.weight.device if other.affine else "cpu")
        made.load_state_dict(other.state_dict())
        return made.train(other.training)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, H, W); B may differ between processes."""
        if not self.training:
            return super().forward(values)
        count = values.numel() // values.shape[1]
        # In double precision, because the variance is a small difference of large numbers.
        wide = values.double()
        own = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), wide.new_tensor([count])])
        sums = _Sum.apply(own)
        total = sums[-1]
        mean, square = (sums[:-1] / total).view(2, -1)
        variance = square - mean.square()
        self._track(mean.detach(), variance.detach() * total.detach() / (total.detach() - 1))
        factor = (variance + self.eps).rsqrt()
        shift = -mean * factor
        if self.affine:
            factor, shift = factor * self.weight, shift * self.weight + self.bias
        # 16 bits would round the shift of a channel that is far from 0 by more than the channel varies.
        kind = torch.promote_types(values.dtype, torch.float32)
        normalized = values.to(kind) * factor.to(kind).view(1, -1, 1, 1) + shift.to(kind).view(1, -1, 1, 1)
        return normalized.to(values.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each process's loss depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: object, own: Tensor) -> Tensor:
        return all_reduce(own.clone())

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return all_reduce(gradient.clone())

"""One of two processes with a synchronized BatchNorm: `torchrun -m tests.fixres.distributed.batchnorm_parts FOLDER`.

It writes FOLDER/RANK.pt: statistics, gradients of its part of a batch, and flags that it exchanged.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from fixres.distributed.process_group import SharedFlags, all_gather, joined, rank
from fixres.distributed.sync_batchnorm import SyncBatchNorm2d


def layer(kind: type) -> Any:
    """A BatchNorm of three channels with different weights."""
    made = kind(3).double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
    return made


def values() -> torch.Tensor:
    """The whole batch: float64, 7 x 3 x 4 x 4."""
    return torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3 + 5


def loss(outputs: torch.Tensor) -> torch.Tensor:
    """A sum over samples, so that those of parts add up."""
    return (outputs.sin() * torch.arange(outputs[0].numel()).view(outputs[0].shape)).sum()


def _flags() -> list[tuple[bool, ...]]:
    flags = SharedFlags()
    return [flags(rank() == 1 and step == 0, step == 2) for step in range(4)]


def main() -> None:
    """The first process takes five samples, the second one two."""
    with joined("cpu"):
        net = layer(SyncBatchNorm2d)
        part = (values()[:5] if rank() == 0 else values()[5:]).requires_grad_()
        loss(net(part)).backward()
        found = {"input": part.grad, "grads": [net.weight.grad, net.bias.grad], **net.state_dict()}
        torch.save({**found, "ranks": all_gather(rank()), "flags": _flags()}, Path(sys.argv[1]) / f"{rank()}.pt")


if __name__ == "__main__":
    main()

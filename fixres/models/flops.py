"""What a forward pass costs."""

from __future__ import annotations

import torch
from torch import nn

from fixres.models.factory import Normalize


def forward_flops(net: nn.Module, normalize: Normalize, resolution: int) -> int:
    """Operations of one image of side `resolution`, counted by torch: a multiplication and an addition are two.

    Two images run, because BatchNorm in training mode needs them where a map has a single place.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next(net.parameters()).device
    images = torch.zeros(2, resolution, resolution, 3, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(normalize(images))
    return counter.get_total_flops() // 2

"""What networks draw by chance, such as dropout and stochastic depth: a function of seed, epoch, step and process.

Seeding torch anew before each step costs about 20 us. A state then needs no generators in it, and a run that goes on
draws what it would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch

from fixres.distributed import rank

_STREAM = 3  # others of the key (seed, stream): fixres.augment_batch


def seed_step(device: torch.device, seed: int, epoch: int, step: int) -> None:
    """Seeds torch's generators of the CPU and of `device` for one step."""
    key = np.array([seed, _STREAM], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=[0, rank(), epoch, step]).random_raw()
    # The generators themselves: torch.manual_seed remembers each call for GPUs that are not yet in use.
    torch.default_generator.manual_seed(int(bits))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(int(bits))

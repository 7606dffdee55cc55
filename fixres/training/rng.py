"""Seeds of what networks draw at random, such as dropout and stochastic depth: functions of (seed, epoch, step, rank).

torch is seeded before each step, which takes about 5 us. So a training checkpoint needs no generators, and a resumed
run draws the same numbers.
"""

from __future__ import annotations

import torch

from fixres.distributed.process_group import rank

_MASK = 2**64 - 1


def seed_step(device: torch.device, seed: int, epoch: int, step: int) -> None:
    """Seeds torch's generators of the CPU and of `device` for one step."""
    bits = mixed(seed, epoch, step, rank())
    # Not torch.manual_seed: it stores every call for GPUs that are not in use yet.
    torch.default_generator.manual_seed(bits)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(bits)


def mixed(*words: int) -> int:
    """64 bits that depend on all bits of all words: splitmix64 (Steele, Lea, Flood 2014), one round for each word.

    It is ten times faster than creating a generator of NumPy.
    """
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state

"""Seeds of steps: each its own, and the same again."""

from __future__ import annotations

import itertools

import pytest
import torch

from fixres.training.rng import mixed, seed_step

_CPU = torch.device("cpu")


def test_one_word_is_splitmix64() -> None:
    """The first outputs of the published generator for seeds 0 and 1."""
    assert mixed(0) == 0xE220A8397B1DCDAF
    assert mixed(1) == 0x910A2DEC89025CC1


def test_every_bit_matters() -> None:
    """A flipped bit of any word changes about half of the 64."""
    words = [3, 1, 7, 2]
    whole = mixed(*words)
    for place, bit in itertools.product(range(4), range(64)):
        others = [word ^ (1 << bit) if k == place else word for k, word in enumerate(words)]
        assert 12 <= (whole ^ mixed(*others)).bit_count() <= 52


def test_steps_draw_their_own_and_the_same_again() -> None:
    steps = list(itertools.product((1, 2), (0, 1), (0, 1, 2)))
    draws = []
    for seed, epoch, step in steps + steps:
        seed_step(_CPU, seed, epoch, step)
        draws.append(tuple(torch.rand(3).tolist()))
    assert draws[: len(steps)] == draws[len(steps) :] and len(set(draws)) == len(steps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_draws_the_same_again() -> None:
    device = torch.device("cuda:0")
    torch.cuda.init()  # as a network on the device has done; without it there are no generators yet
    draws = []
    for _ in range(2):
        seed_step(device, 1, 2, 3)
        draws.append(torch.rand(5, device=device))
    assert torch.equal(*draws)

"""Philox against the known answers of Random123, and the independence of the streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.pipelines.sampling.philox import philox4x32, random_words, uniforms
from tests.kolmogorov import is_uniform

ALL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ALL] * 4, (ALL, ALL), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers_of_random123(counter: list[int], key: tuple[int, int], answer: list[int]) -> None:
    assert philox4x32(np.array(counter, np.uint64), key).tolist() == answer


def test_vectorized_over_counters() -> None:
    counters = np.array([[0, 0, 0, 0], [ALL] * 4], np.uint64)
    both = philox4x32(counters, (0, 0))
    assert both[0].tolist() == philox4x32(counters[0], (0, 0)).tolist()
    assert both[1].tolist() == philox4x32(counters[1], (0, 0)).tolist()


@given(
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    index=st.integers(0, 2**32 - 1),
    num=st.integers(1, 23),
)
def test_a_sample_does_not_depend_on_its_neighbors(seed: int, epoch: int, index: int, num: int) -> None:
    others = np.array([3, index, 2**32 - 1], np.int64)
    alone = random_words(seed, 1, epoch, np.array([index]), num)
    assert alone.shape == (1, num)
    assert (random_words(seed, 1, epoch, others, 23)[1, :num] == alone[0]).all()


def test_seed_stream_epoch_and_index_all_matter() -> None:
    index = np.array([7])
    base = (11, 1, 2, index)
    variants = [base, (12, 1, 2, index), (11 + 2**32, 1, 2, index), (11, 2, 2, index), (11, 1, 3, index)]
    variants.append((11, 1, 2, index + 1))
    words = [tuple(random_words(*arguments, 4)[0].tolist()) for arguments in variants]
    assert len(set(words)) == len(words)


def test_uniforms_are_uniform() -> None:
    draws = uniforms(3, 1, 0, np.arange(50_000), 4)
    assert 0 <= draws.min() and draws.max() < 1
    for column in draws.T:
        assert is_uniform(column)
    # Neighboring columns and neighboring samples are uncorrelated; the bound is 4 standard deviations.
    assert abs(np.corrcoef(draws.T)[np.triu_indices(4, 1)]).max() < 4 / np.sqrt(50_000)
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 4 / np.sqrt(50_000)

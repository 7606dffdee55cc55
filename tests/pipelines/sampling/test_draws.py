"""Subsets and weighted draws: pinned, distributed as torch's sampler, the same on any number of ranks, resumable."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import WeightedRandomSampler

from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.sampling.draws import candidates, drawable, epoch_draws, epoch_size, indices_of
from fixres.pipelines.sampling.order import batches
from fixres.pipelines.spec import InputError, LoaderConfig, TrainCrop
from tests.pipelines.sampling.test_order import config


def weighted(weights: list[float], **changes: object) -> LoaderConfig:
    return config(weights=np.array(weights, np.float64), shuffle=True, **changes)


def test_weighted_draws_are_pinned() -> None:
    """These literals may change only with a note in the change log: they change every seeded run with weights."""
    draws = epoch_draws(weighted([1, 0, 3, 1, 2, 1], seed=0), 6, epoch=0)
    assert indices_of(draws).tolist() == [2, 2, 0, 4, 4, 2]
    assert (draws >> 32).tolist() == [0, 1, 0, 0, 1, 2]


@pytest.mark.parametrize("subset", [None, np.array([7, 3, 3, 9, 0])])
def test_weighted_draws_have_torchs_distribution(subset: np.ndarray | None) -> None:
    """Two samples of the counts, ours and WeightedRandomSampler's, and the analytic law; thresholds 1e-4."""
    weights, epochs = np.array([1.0, 0.0, 4.0, 2.5, 0.5]), 2000
    settings = weighted(list(weights), indices=subset)
    drawn = np.concatenate([indices_of(epoch_draws(settings, 10, epoch)) for epoch in range(epochs)])
    chosen = np.arange(5) if subset is None else subset
    torchs = chosen[list(WeightedRandomSampler(weights.tolist(), 5 * epochs))]
    law = np.bincount(chosen, weights / weights.sum(), minlength=10)
    ours, theirs = (np.bincount(part, minlength=10) for part in (drawn, torchs))
    assert ours[law == 0].sum() == 0 and len(drawn) == 5 * epochs
    held = law > 0
    assert stats.chisquare(ours[held], law[held] * len(drawn)).pvalue > 1e-4
    assert stats.chi2_contingency([ours[held], theirs[held]]).pvalue > 1e-4
    each_place = np.bincount(drawn.reshape(epochs, 5)[:, 0], minlength=10)  # places do not depend on each other
    assert stats.chisquare(each_place[held], law[held] * epochs).pvalue > 1e-4


@given(
    chosen=st.lists(st.integers(0, 29), min_size=1, max_size=60),
    is_weighted=st.booleans(),
    world_size=st.integers(1, 4),
    batch_size=st.integers(1, 5),
    steps=st.integers(0, 5),
)
def test_ranks_share_the_draws_and_resume(
    chosen: list[int], is_weighted: bool, world_size: int, batch_size: int, steps: int
) -> None:
    weights = np.arange(1.0, len(chosen) + 1) if is_weighted else None
    settings = {"indices": np.array(chosen), "weights": weights, "batch_size": batch_size, "shuffle": True}
    alone = np.concatenate(list(batches(config(**settings | {"batch_size": batch_size * world_size}), 30, epoch=3)))
    start = min(steps * batch_size * world_size, len(chosen))
    ranks = [
        list(batches(config(**settings, rank=rank, world_size=world_size), 30, epoch=3, start=start))
        for rank in range(world_size)
    ]
    together = [part for step in zip(*ranks, strict=True) for part in step]
    assert np.concatenate([*together, np.empty(0, np.int64)]).tolist() == alone[start:].tolist()
    assert len(set(alone.tolist())) == len(alone) == len(chosen)  # a sample that comes again is another draw
    assert set(indices_of(alone)) <= set(chosen)
    if not is_weighted:
        assert Counter(indices_of(alone).tolist()) == Counter(chosen)


def test_draws_of_the_whole_set_are_its_order() -> None:
    whole = epoch_draws(config(shuffle=True, seed=4), 50, epoch=2)
    subset = epoch_draws(config(shuffle=True, seed=4, indices=np.arange(50)), 50, epoch=2)
    assert whole.tolist() == subset.tolist() and whole.max() == 49
    stored = np.array([4, 4, 2])
    assert indices_of(epoch_draws(config(indices=stored), 5, epoch=2)).tolist() == [4, 4, 2]


def test_a_sample_drawn_again_gets_another_box_and_its_first_draw_the_usual_one() -> None:
    sizes = np.full((4, 2), 300)
    again = np.array([7, 7 | 1 << 32, 7 | 2 << 32, 8])
    boxes = crop_boxes(TrainCrop(), 0, 5, again, sizes, 64).yxhw
    assert len({tuple(box) for box in boxes.tolist()}) == 4
    assert boxes[[0, 3]].tolist() == crop_boxes(TrainCrop(), 0, 5, np.array([7, 8]), sizes[:2], 64).yxhw.tolist()


def test_replacements_are_samples_that_may_be_drawn() -> None:
    assert list(candidates(2, 4, None)) == [2, 3, 0, 1]
    subset = config(indices=np.array([9, 3, 5, 3]))
    assert list(candidates(5, 12, drawable(subset))) == [5, 9, 3]
    again = 3 | 1 << 32
    assert list(candidates(again, 12, drawable(subset))) == [again, 5, 9]
    assert drawable(weighted([0, 1, 0, 2])).tolist() == [1, 3]
    assert drawable(weighted([1, 0, 1, 0], indices=np.array([9, 3, 5, 3]))).tolist() == [5, 9]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"indices": np.array([0, 6])}, "indices has 6, but the data set's positions are 0 to 5"),
        ({"indices": np.array([-1])}, "indices has -1"),
        ({"indices": np.array([], np.int64)}, "at least one"),
        ({"indices": np.array([0.5])}, "list of positions"),
        ({"weights": np.ones(5)}, "weights has 5 values, but there are 6 samples"),
        ({"weights": np.ones(6), "indices": np.arange(3)}, "there are 3 samples"),
        ({"weights": np.array([1, 1, 1, 1, 1, np.nan])}, "weights has nan"),
        ({"weights": np.array([1, 1, 1, 1, 1, -2.0])}, "weights has -2.0"),
        ({"weights": np.zeros(6)}, "the sum 0.0"),
        ({"weights": np.ones(6), "shuffle": False}, "shuffle=False forbids"),
    ],
)
def test_wrong_subsets_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        epoch_size(config(**{"shuffle": True} | settings), 6)


def test_repeated_augmentation_is_pinned() -> None:
    """These literals may change only with a note in the change log: batches of 4 with two copies of each image."""
    draws = epoch_draws(config(seed=3, shuffle=True, batch_size=4, aug_repeats=2), 8, epoch=0)
    order = epoch_draws(config(seed=3, shuffle=True, batch_size=4), 8, epoch=0)
    assert indices_of(draws).tolist() == order[[0, 1, 0, 1, 2, 3, 2, 3]].tolist()
    assert (draws >> 32).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
def test_repeated_augmentation(num: int, batch_size: int, repeats: int, world_size: int) -> None:
    """As many samples as without; in whole batches the copies of an image are as many as in timm's RepeatAugSampler."""
    settings = config(shuffle=True, batch_size=batch_size, world_size=world_size, aug_repeats=repeats)
    draws, size = epoch_draws(settings, num, epoch=2), batch_size * world_size
    assert len(draws) == num == len(set(draws.tolist()))
    for first in range(0, num - size + 1, size):
        counts = Counter(indices_of(draws[first : first + size]).tolist())
        assert len(counts) == -(-size // repeats) and max(counts.values()) <= repeats
    steps = [list(batches(replace(settings, rank=rank), num, 2)) for rank in range(world_size)]
    assert [draw for step in zip(*steps, strict=True) for part in step for draw in part] == draws.tolist()

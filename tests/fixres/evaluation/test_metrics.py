"""Accuracies against numpy's sorting, intervals against published ones, ReaL against a hand-computed example."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.evaluation.accuracy import summarize
from fixres.evaluation.metrics import Scorer, Scores, wilson_interval
from fixres.evaluation.real_labels import read_real, score_real, val_numbers
from fixres.pipelines.spec import InputError


def scored(values: np.ndarray, labels: np.ndarray, batch: int = 3) -> Scores:
    scorer = Scorer(values.shape[1])
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        index = torch.arange(start, start + len(labels[part]))
        scorer.add(torch.from_numpy(values[part]), torch.from_numpy(labels[part]), index)
    return scorer.finish()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(1, 20), st.booleans())
def test_top_k_equals_that_of_a_stable_sort(seed: int, num_classes: int, num: int, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(num, num_classes)).astype(np.float32)
    values = np.round(values) if ties else values
    labels = generator.integers(0, num_classes, num)
    order = np.argsort(-values, axis=1, kind="stable")
    scores = scored(values, labels)
    for k in (1, 5):
        assert scores.num_in_top(k) == (order[:, :k] == labels[:, None]).any(1).sum()
    assert (scores.predictions == values.argmax(1)).all()
    logs = values - np.log(np.exp(values.astype(np.float64)).sum(1, keepdims=True))
    assert scores.loss == pytest.approx(-logs[np.arange(num), labels].mean(), rel=1e-5, abs=1e-6)
    right = order[:, 0] == labels
    means = [right[labels == k].mean() if (labels == k).any() else np.nan for k in range(num_classes)]
    np.testing.assert_allclose(scores.class_top1(), means)
    assert summarize(scores, 32, 2.0).class_mean_top1 == pytest.approx(np.nanmean(means))
    assert summarize(scores, 32, 2.0).images_per_second == num / 2


@pytest.mark.parametrize(
    ("right", "num", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3, and the ends.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(right: int, num: int, low: float, high: float) -> None:
    assert wilson_interval(right, num) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    values = np.zeros((4, 3), np.float32)
    values[2, 1] = bad
    with pytest.raises(InputError, match="not finite"):
        scored(values, np.array([0, 1, 2, 0]))


def test_other_numbers_of_classes_and_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="has 3 classes, the data 2"):
        Scorer(2).add(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="no images"):
        Scorer(2).finish()


def real_file(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "real.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_real_labels_by_hand(tmp_path: Path) -> None:
    # Images 1 to 5; image 3 has no label. The data has them in another order.
    real = read_real(real_file(tmp_path, [[0], [1, 2], [], [2], [0, 1]]), 3)
    names = [f"/data/n01/ILSVRC2012_val_{number:08d}.JPEG" for number in (4, 1, 3, 2, 5)]
    predicted = np.array([2, 1, 0, 2, 2])  # right, wrong, no label, right, wrong
    labels = np.zeros(5, np.int64)
    scores = scored(np.eye(3, dtype=np.float32)[predicted], labels)
    result = score_real(scores, real, val_numbers(names, 5))
    assert (result.top1, result.num_images, result.num_left_out) == (0.5, 4, 1)
    assert result.top1_interval == pytest.approx((0.1500, 0.8500), abs=1e-4)
    shuffled = Scores(3, labels, predicted[::-1], scores.ranks, np.array([4, 3, 2, 1, 0]), 0.0)
    assert score_real(shuffled, real, val_numbers(names, 5)) == result
    unknown = Scores(3, labels, predicted, scores.ranks, np.full(5, -1), 0.0)
    with pytest.raises(InputError, match="does not report which image is which"):
        score_real(unknown, real, val_numbers(names, 5))
    with pytest.raises(InputError, match="none of the images has a ReaL label"):
        score_real(scores, [frozenset()] * 5, val_numbers(names, 5))


@pytest.mark.parametrize("content", ["[[0], [", "{}", "[]", "[0]", "[[3]]", "[[-1]]", "[[true]]", "[" * 100_000])
def test_bad_real_files(content: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"real\.json") as caught:
        read_real(real_file(tmp_path, content), 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cat.jpg", "ILSVRC2012_val_00000006.JPEG", "ILSVRC2012_val_00000000.JPEG"])
def test_images_without_real_labels(name: str) -> None:
    with pytest.raises(InputError, match="ReaL labels are for ILSVRC2012_val_00000001 to 00000005"):
        val_numbers([name], 5)
    assert val_numbers(["ILSVRC2012_val_00000005"], 5) == [5]

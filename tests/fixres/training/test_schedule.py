"""Schedules are pinned by literal tables, not by their own formulas."""

from __future__ import annotations

import pytest

from fixres.config.recipe import ResolutionConfig
from fixres.pipelines.spec import InputError
from fixres.training.schedule import lr_at, resolution_at, scaled_lr


def test_lr_warms_up_linearly_then_falls_as_half_a_cosine() -> None:
    table = [lr_at(epoch, epochs=10, peak=0.8, warmup_epochs=2) for epoch in (0, 0.5, 1, 2, 4, 6, 8, 10)]
    assert table == pytest.approx([0, 0.2, 0.4, 0.8, 0.6828427, 0.4, 0.1171573, 0.0], abs=1e-7)


def test_lr_without_warmup_starts_at_the_peak() -> None:
    assert lr_at(0, epochs=4, peak=0.1) == pytest.approx(0.1)
    assert lr_at(4, epochs=4, peak=0.1) == pytest.approx(0.0)


def test_a_run_shorter_than_its_warmup_only_warms_up() -> None:
    assert [lr_at(epoch, epochs=2, peak=1.0, warmup_epochs=5) for epoch in (0, 1, 2)] == pytest.approx([0, 0.2, 0.4])


def test_lr_scales_with_the_batch() -> None:
    assert scaled_lr(0.1, 256) == pytest.approx(0.1)
    assert scaled_lr(0.1, 1024) == pytest.approx(0.4)
    assert scaled_lr(0.4, 64) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ResolutionConfig([(0, 128)]), [128] * 8),
        (ResolutionConfig([(0, 64), (3, 96), (6, 128)]), [64, 64, 64, 96, 96, 96, 128, 128]),
        (ResolutionConfig([(0, 128), (2, 128), (6, 192)], "linear"), [128, 128, 128, 128, 160, 160, 192, 192]),
        (ResolutionConfig([(0, 96), (4, 160)], "linear", 16), [96, 112, 128, 144, 160, 160, 160, 160]),
        (ResolutionConfig([(0, 160), (4, 96)], "linear"), [160, 128, 128, 96, 96, 96, 96, 96]),
    ],
)
def test_resolution_tables(config: ResolutionConfig, expected: list[int]) -> None:
    assert [resolution_at(epoch, config) for epoch in range(8)] == expected


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "must rise and start at 0"),
        ([(1, 128)], "must rise and start at 0"),
        ([(0, 128), (0, 160)], "must rise and start at 0"),
        ([(0, 128), (5, 150)], "150 px at epoch 5 is not a multiple of resolution.multiple=32; use 128"),
        ([(0, 4)], "resolution=4 is not supported"),
    ],
)
def test_unsupported_resolutions_are_refused(points: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ResolutionConfig(points)

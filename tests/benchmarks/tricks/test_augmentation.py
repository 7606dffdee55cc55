"""The benchmark of augmentation measures every augmentation and makes a table of its record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.tricks.augmentation import LIBRARIES, AugmentationOptions, measure
from benchmarks.tricks.report import augmentation_table
from fixres.pipelines.spec import InputError


@pytest.fixture
def _same_threads() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("_same_threads")
def test_every_augmentation_is_measured() -> None:
    made = measure(AugmentationOptions(batch_size=4, train_res=16, rounds=1, seconds=0.001, num_threads=2))
    assert [one["augmentation"] for one in made["results"]] == list(LIBRARIES) and not made["partial"]
    for one in made["results"]:
        speeds = [library["images_per_second"] for library in one["libraries"]]
        assert one["libraries"][0]["relative_speed"] == 1
        assert one["libraries"][1]["relative_speed"] == pytest.approx(speeds[1] / speeds[0])
    rows = augmentation_table(made).splitlines()
    assert len(rows) == 2 + sum(1 + len(libraries) for _, libraries in LIBRARIES.values())
    assert rows[2].startswith("| RandAugment | fixres |") and rows[2].endswith("| 1 |  |")


def test_no_threads_are_refused() -> None:
    with pytest.raises(InputError, match="num_threads=0 must be at least 1"):
        AugmentationOptions(num_threads=0)

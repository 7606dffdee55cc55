"""Iterations that are left, forgotten, overtaken, or changed while they run."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest

from pipelines.loaders import open_loader
from tests.pipelines.loading import TRAIN, collect, config, write_coded_beton

NUM = 40


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coded_beton(tmp_path_factory.mktemp("stored") / "coded.beton", [(60, 80)] * NUM)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


def test_an_iteration_that_is_left_ends_its_thread(stored: Path) -> None:
    with open_loader("roc", config(stored)) as loader:
        for _ in loader:
            assert len(threads()) == 1
            break
        assert threads() == []
        assert loader.state_dict()["position"] == 5  # of what was handed out


def test_a_loader_that_nobody_closes_goes_with_its_last_reference(stored: Path) -> None:
    loader = open_loader("roc", config(stored))
    next(iter(loader))
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None and threads() == []


@pytest.mark.parametrize(("engine", "num_workers"), [("roc", 1), ("torch", 0)])
def test_two_iterations_at_once_are_refused(engine: str, num_workers: int, stored: Path) -> None:
    """The first one must not look as if its epoch had come to its end."""
    with open_loader(engine, config(stored, num_workers=num_workers)) as loader:
        first = iter(loader)
        next(first)
        second = iter(loader)
        next(second)
        with pytest.raises(RuntimeError, match="ended this one"):
            next(first)
        assert sum(len(batch.labels) for batch in second) == NUM - 5
        with pytest.raises(RuntimeError, match="ended this one"):
            list(zip(loader, loader, strict=False))
        third = iter(loader)
        next(third)
        loader.load_state_dict(loader.state_dict())
        with pytest.raises(RuntimeError, match="ended this one"):
            next(third)


@pytest.mark.parametrize(("engine", "num_workers"), [("roc", 1), ("roc", 0), ("torch", 1), ("torch", 0)])
def test_what_is_set_in_the_middle_holds_from_the_next_iteration_on(
    engine: str, num_workers: int, stored: Path
) -> None:
    """Of 8 batches 4 at most are on their way when the settings change."""
    with open_loader(engine, config(stored, crop=TRAIN, shuffle=True, num_workers=num_workers)) as loader:
        whole, seen = collect(loader), []
        for batch in loader:
            if not seen:
                loader.set_resolution(24)
                loader.set_epoch(1)
            seen.append(batch)
        assert [batch.images.shape[1] for batch in seen] == [48] * 8
        assert (seen[-1].images.numpy() == whole.images[-5:]).all()  # in the boxes of epoch 0
        assert loader.state_dict() | {"epoch": 1, "position": 0} == loader.state_dict()
        assert collect(loader).images.shape[1:3] == (24, 24)

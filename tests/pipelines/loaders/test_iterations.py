"""Iterations that are abandoned, replaced by another one, or changed while they run."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.pipelines.loaders import is_installed, open_loader
from fixres.pipelines.spec import Batch, Loader
from tests.coded import write_coded_folder
from tests.pipelines.loaders.loading import TRAIN, collect, config, write_coded_beton, write_coded_roc

NUM = 40


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coded_beton(tmp_path_factory.mktemp("stored") / "coded.beton", [(60, 80)] * NUM)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


def test_an_abandoned_iteration_ends_its_thread(stored: Path) -> None:
    with open_loader("roc", config(stored)) as loader:
        for _ in loader:
            assert len(threads()) == 1
            break
        assert threads() == []
        assert loader.state_dict()["position"] == 5  # samples delivered


def test_an_unclosed_loader_is_freed_with_its_last_reference(stored: Path) -> None:
    loader = open_loader("roc", config(stored))
    next(iter(loader))
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None and threads() == []


@pytest.mark.parametrize(("engine", "num_workers"), [("roc", 1), ("torch", 0)])
def test_two_iterations_at_once_are_refused(engine: str, num_workers: int, stored: Path) -> None:
    """The first one must not look like a complete epoch."""
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
def test_settings_during_an_iteration_apply_to_the_next_one(engine: str, num_workers: int, stored: Path) -> None:
    """At most 4 of 8 batches are prepared when the settings change."""
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


def needs(engine: str) -> object:
    return pytest.param(engine, marks=pytest.mark.skipif(not is_installed(engine), reason=f"{engine} is not installed"))


@pytest.fixture(scope="module")
def stored_for(tmp_path_factory: pytest.TempPathFactory, stored: Path) -> dict[str, Path]:
    """The data that each engine reads."""
    root, sizes = tmp_path_factory.mktemp("others"), [(60, 80)] * NUM
    roc, folder = write_coded_roc(root / "roc.beton", sizes), write_coded_folder(root / "folder", sizes)
    return dict.fromkeys(("torch", "ffcv", "dali-slice"), stored) | {"roc": roc, "roc-dali": roc, "dali": folder}


@pytest.mark.parametrize("engine", ["roc", "torch", *map(needs, ("roc-dali", "dali-slice", "dali", "ffcv"))])
def test_an_iteration_keeps_the_settings_of_its_start(engine: str, stored_for: dict[str, Path]) -> None:
    """Settings between iter() and the first batch apply to the next iteration, too."""
    settings = {"crop": TRAIN, "shuffle": True, "num_workers": int(engine != "torch"), "resolution": 32}
    with open_loader(engine, config(stored_for[engine], **settings)) as loader:
        wanted = [indices.tolist() for indices in loader.index_batches()]
        loader.load_state_dict(loader.state_dict() | {"position": 10})
        begun = iter(loader)
        loader.set_epoch(1)
        loader.set_resolution(24)
        seen = list(begun)
        assert [batch.indices.tolist() for batch in seen] == wanted[2:]
        assert {batch.images.shape[1] for batch in seen} == {32}
        assert loader.state_dict()["epoch"] == 1 and loader.state_dict()["position"] == 0
        assert collect(loader).images.shape == (NUM, 24, 24, 3)


@pytest.mark.parametrize("engine", ["torch", *map(needs, ("dali", "ffcv"))])
def test_replacements_are_those_of_the_running_epoch(engine: str, tmp_path: Path) -> None:
    """A bad sample that is found after set_epoch changes neither order nor crops of the running epoch."""
    folder = write_coded_folder(tmp_path / "coded", [(60, 80)] * NUM)
    path = folder if engine != "ffcv" else write_coded_beton(tmp_path / "x.beton", [(60, 80)] * NUM)
    settings = {"crop": TRAIN, "shuffle": True, "on_bad": "replace", "num_workers": 0, "batch_size": 4}
    with open_loader(engine, config(path, **settings)) as loader:
        order = np.concatenate(list(loader.index_batches()))
        bad = int(order[-2])  # met when the epoch is nearly over
        damage(path, bad)
        seen = []
        for batch in loader:
            if not seen:
                loader.set_epoch(1)
            seen.append(batch)
    indices = np.concatenate([batch.indices for batch in seen])
    assert (indices[order != bad] == order[order != bad]).all() and indices[-2] != bad
    with open_loader(engine, config(path, **settings)) as loader:
        again = list(loader)
    if engine != "dali":  # its pipeline draws other crops after a rebuild
        assert (again[-1].images[-2] == seen[-1].images[-2]).all()


def damage(path: Path, index: int) -> None:
    """Truncates the image of a sample, in a folder or in a .beton file."""
    from fixres.pipelines.sources import open_stored

    source = open_stored(path)
    if path.is_dir():
        Path(source.name(index)).write_bytes(source.read(index)[:300])
        return
    offset, size = source.image_spans[index]
    with open(path, "r+b") as file:
        file.seek(offset + 300)
        file.write(bytes(int(size) - 300))


@pytest.mark.parametrize(("engine", "num_workers"), [("roc", 1), ("roc", 0), ("torch", 0)])
def test_a_loader_closed_during_an_epoch_raises_an_error(engine: str, num_workers: int, stored: Path) -> None:
    loader = open_loader(engine, config(stored, num_workers=num_workers))
    batches = iter(loader)
    next(batches)
    loader.close()
    with pytest.raises(RuntimeError, match="was closed"):
        next(batches)


def test_a_loader_that_another_thread_waits_for_is_not_closed_or_restarted(stored_for: dict[str, Path]) -> None:
    loader, seen = open_loader("roc", config(stored_for["roc"], num_workers=0)), []
    reached, go_on, make = threading.Event(), threading.Event(), loader._make

    def slow(*arguments: np.ndarray) -> None:
        reached.set()
        assert go_on.wait(30)
        make(*arguments)

    loader._make = slow
    other = threading.Thread(target=lambda: seen.extend(loader))
    other.start()
    assert reached.wait(30)
    for forbidden in (loader.close, lambda: iter(loader)):
        with pytest.raises(RuntimeError, match="another thread"):
            forbidden()
    go_on.set()
    other.join()
    assert sum(len(batch.labels) for batch in seen) == NUM
    loader.close()


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("engine", ["roc", *map(needs, ("roc-dali", "dali-slice", "dali"))])
def test_closing_ends_all_threads(engine: str, early: bool, stored_for: dict[str, Path]) -> None:
    """Threads and the engine's memory are freed at once, not at the next garbage collection."""

    def num_threads() -> int:
        return len(os.listdir("/proc/self/task"))

    def use() -> None:
        with open_loader(engine, config(stored_for[engine], num_workers=2)) as loader:
            for _ in loader:
                assert num_threads() > before
                if early:
                    break

    before = 0
    use()  # what libraries start once
    gc.collect()
    before = num_threads()
    gc.disable()
    try:
        use()
        give_up = time.monotonic() + 10
        while num_threads() > before:  # a thread that was joined is still listed for a moment
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        gc.enable()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("engine", ["roc", "torch"])
def test_a_forked_process_does_not_wait_for_missing_workers(engine: str, num_workers: int, stored: Path) -> None:
    """A fork does not copy threads; waiting for their work would never end. The parent's iteration goes on."""

    def use(loader: Loader, begun: Iterator[Batch], pipe: Connection) -> None:
        for batches in (begun, loader):
            try:
                pipe.send(len(next(iter(batches)).labels))
            except Exception as error:
                pipe.send(str(error))
        loader.close()
        pipe.send("closed")

    context = multiprocessing.get_context("fork")
    with open_loader(engine, config(stored, num_workers=num_workers)) as loader:
        collect(loader)
        begun = iter(loader)
        next(begun)
        here, there = context.Pipe()
        child = context.Process(target=use, args=(loader, begun, there), daemon=True)
        child.start()
        for wanted in ("in another process", "in another process", "closed"):
            assert here.poll(20), "it hangs"
            assert wanted in here.recv()
        child.join()
        assert sum(len(batch.labels) for batch in begun) == NUM - 5
        assert len(collect(loader).labels) == NUM


@pytest.mark.parametrize("num_workers", [0, 1])
def test_iterating_does_not_draw_from_torchs_generator(num_workers: int, stored: Path) -> None:
    """torch's DataLoader draws from it at each beginning, so what a network drew next hung on how often one began."""
    before = torch.get_rng_state()
    with open_loader("torch", config(stored, num_workers=num_workers)) as loader:
        collect(loader)
        collect(loader)
    assert torch.equal(torch.get_rng_state(), before)

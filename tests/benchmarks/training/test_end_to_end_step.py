"""Steps with batches of engines: record, table, Ctrl-C, and the third-party loader that decodes batches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.docs.render import section
from benchmarks.throughput.engines import Engine
from benchmarks.training import end_to_end_step
from fixres.pipelines.loaders.pillow import _PREFETCH
from fixres.reporting.records import read_record
from fixres.training.step_speed import Steps


def start(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, *more: str) -> dict[str, Any]:
    """The record that the command writes."""
    target = tmp_path / "end_to_end_step.json"
    words = ["--data", folder, "--work-dir", tmp_path / "work", "--json", target, "--engines", "torch,torchvision-gpu"]
    words += ["--model", "resnet10t", "--batch-size", 4, "--num-images", 24, "--num-workers", 0, "--seconds", 0.01]
    monkeypatch.setattr(sys, "argv", ["end_to_end_step", *map(str, words), "--device", "cpu", "--rounds", "2", *more])
    try:
        end_to_end_step.main()
    finally:
        content = read_record(target, "end_to_end_step")
    return content


def test_every_engine_is_compared_with_data_on_the_device(
    coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = start(monkeypatch, coded_folder, tmp_path, "--train-res", "32,64")
    found = {(one["res"], one["engine"]): one for one in content["results"]}
    engines = (end_to_end_step.ON_DEVICE, "torch", "torchvision-gpu")
    assert set(found) == {(side, name) for side in (32, 64) for name in engines}
    assert all(found[side, end_to_end_step.ON_DEVICE]["relative_speed"] == 1 for side in (32, 64))
    assert all(one["relative_speed"] > 0 for one in found.values())
    assert "| 64 | torch |" in section(content)


def test_batches_prepared_ahead_are_not_counted() -> None:
    """An engine fills its queues during other engines' windows."""

    class Counting:
        taken = 0

        def next_batch(self) -> None:
            self.taken += 1

        batch = next_batch

        def timed_fed(self, *_: object) -> tuple[int, float]:
            return self.taken, 1.0

    for num_workers in (1, 2, 16):
        stream = Counting()
        assert end_to_end_step._fed(stream, stream, 1.0, num_workers).num_images > _PREFETCH * num_workers


def test_ctrl_c_keeps_the_resolutions_that_are_finished(
    coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Steps.timed, iter(range(100))

    def timed(self: Steps, resolution: int, seconds: float) -> Any:
        if next(calls) == 2:  # the first of the second resolution
            raise KeyboardInterrupt
        return original(self, resolution, seconds)

    monkeypatch.setattr(Steps, "timed", timed)
    with pytest.raises(KeyboardInterrupt, match="marked partial"):
        start(monkeypatch, coded_folder, tmp_path, "--train-res", "32,64")
    content = read_record(tmp_path / "end_to_end_step.json")
    assert content["partial"] is True and {one["res"] for one in content["results"]} == {32}


def test_the_batched_decoder_gives_crops_of_the_images(coded_folder: Path) -> None:
    """Coded images: red grows to the right, or to the left if flipped; green grows downwards."""
    loader = Engine("torchvision-gpu", coded_folder, 6, 0, "cpu").open()
    loader.set_resolution(64)
    loader.set_epoch(0)
    images, labels = next(iter(loader))
    assert images.shape == (6, 64, 64, 3) and images.dtype == torch.uint8 and images.is_contiguous()
    assert set(labels.tolist()) <= {0, 1}
    slopes = np.diff(images.numpy().astype(float).mean(axis=1)[..., 0], axis=1).mean(axis=1)
    assert (np.diff(images.numpy().astype(float).mean(axis=2)[..., 1], axis=1).mean(axis=1) > 0).all()
    assert (np.abs(slopes) > 0).all()
    loader.close()


@pytest.mark.parametrize(("dali", "method"), [(True, "forkserver"), (False, "fork")])
def test_the_batched_decoders_workers_are_started_safely_and_send_one_tensor_a_batch(
    coded_folder: Path, monkeypatch: pytest.MonkeyPatch, dali: bool, method: str
) -> None:
    """A tensor for each file would take a file descriptor each: 8192 for 16 workers and batches of 256."""
    monkeypatch.delitem(sys.modules, "nvidia.dali", raising=False)
    if dali:  # forks of a process with DALI's threads hang now and then
        monkeypatch.setitem(sys.modules, "nvidia.dali", object())
    loader = Engine("torchvision-gpu", coded_folder, 6, 1, "cpu").open()
    loader.set_resolution(64)
    assert loader._loader.multiprocessing_context.get_start_method() == method
    if dali:
        assert [isinstance(part, torch.Tensor) for part in next(iter(loader._batches()))] == [True, False, False]
        assert next(iter(loader))[0].shape == (6, 64, 64, 3)
    loader.close()

"""Two processes train like one; one of them dies; the run is resumed with another number. With gloo, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d

from fixres.config.parsing import parse_recipe
from fixres.distributed.process_group import (
    SharedFlags,
    _from_slurm,
    all_gather,
    first_main,
    joined,
    num_processes,
    sharded,
)
from fixres.distributed.sync_batchnorm import SyncBatchNorm2d, synchronized
from fixres.experiment.run_folder import RunLog
from fixres.experiment.variant import VariantRun
from fixres.experiment.variant_parts import VariantPlan
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.pipelines.datasets.prepared import PreparedData
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, EXIT_LOST_PEER, EXIT_PREEMPTED
from fixres.pipelines.sampling.draws import epoch_order
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import CPU, TINY
from tests.fixres.distributed import batchnorm_parts
from tests.fixres.runs import NUM_TRAIN, Server, batches_of, metrics, serving, weights, write_recipe

_SYNC = {
    "model": {"name": "resnet10t", "kwargs": {"channels": [8, 16, 16, 24], "stem_width": 8}, "sync_bn": True},
    "optim": {"lr": 0.1, "batch_size": 8, "warmup_epochs": 1},
}
_VARIANTS = {
    "baseline": {"epochs": 2, "resolution": {"points": [[0, 32]]}, "test_res": 48},
    "fast": {
        "epochs": 2,
        "resolution": {"points": [[0, 32], [1, 48]], "multiple": 16},
        "test_res": 48,
        "finetune": {"epochs": 2, "augmentation": "test"},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its runs' stderr is in `errors` of its folder."""
    with serving(tmp_path_factory.mktemp("server")) as made:
        yield made


def _finish(server: Server, children: list[int]) -> None:
    codes = [server.end(child) for child in children]
    assert not any(codes), (codes, server.errors())


def _noted(folder: Path, ranks: int) -> list[list[Any]]:
    return [batch for rank in range(ranks) for batch in batches_of(folder.with_name(f"{folder.name}.{rank}"))]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path, server: Server) -> None:
    """With synchronized BatchNorm: the same samples in each step, and results equal up to rounding."""
    recipe = write_recipe(tmp_path, **_SYNC, variants=_VARIANTS)
    for number in (1, 2):
        call = ("--config", recipe, "--output", tmp_path / f"run{number}")
        _finish(server, server.start_all(number, *call, NOTES=tmp_path / f"notes{number}"))
    assert "8 in a step, 4 in each of 2 processes" in server.errors()
    one, two = (metrics(tmp_path / f"run{number}") for number in (1, 2))
    assert len(one) == len(two) == 4 + 3 + 2
    for line, other in zip(one, two, strict=True):
        for key in ("variant", "kind", "step", "num_images"):
            assert line[key] == other[key]
        # Rounding differs from the first step on and grows with each: as it does with another number of threads.
        is_first = line["kind"] == "train" and line["step"] == 1
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4 if is_first else 2e-3)
    first, second = (weights(tmp_path / f"run{number}") for number in (1, 2))
    worst = max((first[name] - second[name]).abs().max() for name in first)
    assert first.keys() == second.keys() and worst < 2e-2
    whole = batches_of(tmp_path / "notes1.0")
    halves = [batches_of(tmp_path / f"notes2.{rank}") for rank in (0, 1)]
    assert [batch[2] for batch in whole] == [a[2] + b[2] for a, b in zip(*halves, strict=True)]


@pytest.mark.slow
def test_two_processes_finetune_as_one_does(tmp_path: Path, tiny_net: torch.nn.Module, server: Server) -> None:
    """From the cache that they share, to one checkpoint."""
    data = write_recipe(tmp_path).parent / "photos"
    classes = tuple(sorted(folder.name for folder in (data / "train").iterdir()))
    info = CheckpointInfo(TINY.name, TINY.kwargs, classes, 32, 40, 0.875)
    save_checkpoint(tmp_path / "trained.pt", tiny_net, info)
    call = ["--model", tmp_path / "trained.pt", "--test-res", "48", "--data", data, "--engine", "torch",
            "--num-workers", "0", "--work-dir", tmp_path / "work", "--optim.batch_size", "8", "--device",
            "cpu", "--finetune.layers", "classifier", "--finetune.augmentation", "test", "--finetune.cache_dtype",
            "fp32"]  # fmt: skip
    for number in (1, 2):
        output = ("--output", tmp_path / f"fixed{number}")
        _finish(server, server.start_all(number, *call, *output, tool="finetune"))
    one, two = (torch.load(tmp_path / f"fixed{number}" / "trained_finetuned48.pt")["state_dict"] for number in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(one["fc.weight"], tiny_net.state_dict()["fc.weight"])
    assert "which the processes share" in server.errors()


@pytest.mark.slow
def test_when_one_of_two_dies_both_are_started_again(tmp_path: Path, server: Server) -> None:
    recipe, notes = write_recipe(tmp_path, **_SYNC, variants=_VARIANTS), tmp_path / "notes"
    call = ("--config", recipe, "--output", tmp_path / "run", "--resume", "auto")
    launcher = server.torchrun(2, *call, restarts=2, NOTES=notes)
    server.wait_for_batches(8, launcher, tmp_path / "notes.1")
    os.kill(batches_of(tmp_path / "notes.1")[0][0], signal.SIGKILL)
    assert server.end(launcher) == 0, server.errors()
    assert len({batch[0] for batch in _noted(notes, 2)}) == 4
    trained = [line for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    assert [line["num_images"] for line in trained] == [NUM_TRAIN] * 4
    assert (
        json.loads((tmp_path / "run" / "report.json").read_text())["variants"][1]["finetune_epochs"][1]["num_images"]
        == 40
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_mistake_found_in_one_process_ends_all_in_one_line(tmp_path: Path, number: int, server: Server) -> None:
    """A damaged image in a batch of process `number`: it names the image, the other says that a process has ended."""
    folder = tmp_path / "data"
    folder.mkdir()
    recipe = write_recipe(folder, **_SYNC, variants={"baseline": _VARIANTS["baseline"]})
    index = epoch_order(NUM_TRAIN, seed=3, epoch=0, shuffle=True)[16 + 4 * number + 1]  # of the third step
    broken = sorted((folder / "photos" / "train").glob("*/*"))[index]
    broken.write_bytes(b"no picture")
    children = server.start_all(2, "--config", recipe, "--output", tmp_path / "run", ERRORS=tmp_path / "errors")
    codes = [server.end(child) for child in children]
    errors = (tmp_path / "errors").read_text()
    assert codes[number] == EXIT_INPUT and codes[1 - number] == EXIT_LOST_PEER, errors
    lines = [line for line in errors.replace("\r", "\n").splitlines() if line.startswith("train.py: ")]
    assert len(lines) == 2 and sum(str(broken) in line for line in lines) == 1
    assert sum("another process of the run has ended" in line for line in lines) == 1
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_an_epoch_is_resumed_with_another_number_of_processes(
    tmp_path: Path, before: int, after: int, server: Server
) -> None:
    """Each index exactly once, before or after."""
    variants = {"fast": {"epochs": 2, "resolution": {"points": [[0, 32]]}, "test_res": 32}, "baseline": None}
    recipe, notes = write_recipe(tmp_path, **_SYNC, variants=variants), tmp_path / "notes"
    call = ("--config", recipe, "--output", tmp_path / "run", "--resume", "auto")
    children = server.start_all(before, *call, NOTES=notes)
    while len(batches_of(tmp_path / "notes.0")) < 2:
        time.sleep(0.001)
    os.kill(children[0], signal.SIGTERM)  # the main process alone; the others hear of it
    assert [server.end(child) for child in children] == [EXIT_PREEMPTED] * before, server.errors()
    stopped = len(_noted(notes, 2))
    assert stopped < before * NUM_TRAIN // 8, "the stop came too late to cut the epoch"
    _finish(server, server.start_all(after, *call, NOTES=notes))
    batches = _noted(notes, 2)
    assert len({batch[0] for batch in batches}) == before + after
    for epoch in (0, 1):
        seen_in_epoch = Counter(index for batch in batches if batch[1] == epoch for index in batch[2])
        assert seen_in_epoch == Counter(range(NUM_TRAIN))


def test_batchnorm_over_two_processes_is_that_of_the_whole_batch(tmp_path: Path, server: Server) -> None:
    """Statistics and all gradients, with parts of different sizes; and the exchange of flags."""
    _finish(server, server.start_all(2, tmp_path, tool=batchnorm_parts.__name__))
    values, layer = batchnorm_parts.values().requires_grad_(), batchnorm_parts.layer(torch.nn.BatchNorm2d)
    batchnorm_parts.loss(layer(values)).backward()
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([part["input"] for part in parts]), values.grad)
    for gradient, own, other in zip(
        (layer.weight.grad, layer.bias.grad), *(part["grads"] for part in parts), strict=True
    ):
        torch.testing.assert_close(own + other, gradient)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(parts[0][name], layer.state_dict()[name])
    assert parts[0]["ranks"] == [0, 1]
    assert parts[0]["flags"] == parts[1]["flags"] == [(False, False), (True, False), (False, False), (False, True)]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_synchronized_batchnorm_is_as_exact_as_torchs_in_half_precision(kind: torch.dtype) -> None:
    """Of channels far from 0, where shift and factor in 16 bits would be far off."""
    generator = torch.Generator().manual_seed(3)
    values = (torch.randn(8, 3, 4, 4, generator=generator) + torch.tensor([5.3, -41, 200]).view(3, 1, 1)).to(kind)
    exact = torch.nn.BatchNorm2d(3).double()(values.double())
    ours, torchs = SyncBatchNorm2d(3)(values), torch.nn.BatchNorm2d(3)(values)
    assert ours.dtype == kind
    assert (ours - exact).abs().max() <= 1.5 * (torchs - exact).abs().max()


def test_on_a_gpu_torchs_synchronized_batchnorm_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever device the network is made on: ours adds in double precision, and refuses BatchNorms of other kinds."""
    seen: list[torch.device] = []
    monkeypatch.setattr("fixres.experiment.variant_parts.synchronized", lambda net, device: seen.append(device) or net)
    recipe = parse_recipe(["--config", str(write_recipe(tmp_path, **_SYNC)), "--output", str(tmp_path / "run")])
    data = PreparedData(recipe.data, "cpu")
    test_loader = data("val", crop=recipe.eval_crop, resolution=48, batch_size=8)
    with closing(RunLog(recipe.folder, recipe, {})) as log:
        VariantRun(VariantPlan("fast", recipe), data, test_loader, CPU, log)
    assert seen == [CPU.device]
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    net = synchronized(torch.nn.Sequential(torch.nn.BatchNorm2d(3), BatchNormAct2d(3)), torch.device("cuda"))
    assert all(isinstance(layer, torch.nn.SyncBatchNorm) for layer in net)
    (ours,) = synchronized(torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.device("cpu"))
    assert isinstance(ours, SyncBatchNorm2d)


def test_a_single_process_needs_no_group() -> None:
    assert num_processes() == 1 and all_gather(5) == [5] and first_main(lambda: 3) == 3
    assert SharedFlags()(True, False) == (True, False)
    assert sharded(max) is max  # type: ignore[arg-type,comparison-overlap]
    with joined("cpu") as device:
        assert device == "cpu" and not torch.distributed.is_initialized()


def test_the_environment_of_slurm_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "123456"}
    environment = {**step, "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    _from_slurm(environment)
    assert {name: environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")} == {
        "RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "23456",
    }  # fmt: skip
    for alone in ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, {**step, "SLURM_STEP_NUM_TASKS": "1"}):
        seen = dict(alone)
        _from_slurm(seen)
        assert seen == alone
    with pytest.raises(InputError, match="MASTER_ADDR"):
        _from_slurm(dict(step))
    torchruns = {"RANK": "0", "WORLD_SIZE": "2", **step}
    _from_slurm(torchruns)
    assert torchruns["WORLD_SIZE"] == "2"


def test_a_device_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="each takes its own"), joined("cuda:0"):
        pass

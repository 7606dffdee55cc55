"""Compilation and profiling of the training loop change its speed and its traces, not what it learns."""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fixres.config.recipe import OptimConfig, Recipe
from fixres.models.factory import Normalize, create_model
from fixres.observability.profiler import StepProfiler
from fixres.pipelines.spec import InputError, Loader, TrainCrop
from fixres.training.compilation import compiled
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.trainer import Trainer
from tests.fixres.conftest import CPU, TINY

OpenCoded = Callable[..., Loader]


def _losses(loader: Loader, compile: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Two epochs at two resolutions."""
    torch.manual_seed(3)
    net = create_model(TINY, 2).train()
    stepper = Stepper(create_optimizer(net, OptimConfig()), CPU)
    trainer, losses = Trainer(net, Normalize(), stepper, CrossEntropy(0.1), compile), []
    for epoch, resolution in enumerate((32, 48)):
        loader.set_epoch(epoch)
        loader.set_resolution(resolution)
        losses.append(trainer.epoch(loader, lambda _: 0.02, "train").loss)
    return losses, net.state_dict()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_network_learns_the_same_under_the_same_names(
    open_coded: OpenCoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the C++ backend, which takes minutes here and is torch's affair."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.utils.counters.clear()
    plain, weights = _losses(open_coded(crop=TrainCrop(), shuffle=True, drop_last=True), "no")
    fast, same = _losses(open_coded(crop=TrainCrop(), shuffle=True, drop_last=True), "yes")
    assert fast == pytest.approx(plain, rel=1e-3)
    assert list(same) == list(weights)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # one for each resolution


def test_auto_compiles_on_gpus_only() -> None:
    net = create_model(TINY, 2)
    assert compiled(net, "auto", torch.device("cpu")) is net
    assert compiled(net, "no", torch.device("cuda")) is net


def test_compiling_without_a_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler .*; install g\+\+, or choose compile=no"):
        compiled(create_model(TINY, 2), "yes", torch.device("cpu"))


@pytest.mark.parametrize(
    ("which", "missing"), [("", "a C compiler; install gcc"), ("gcc", "Python's headers; install")]
)
def test_on_a_gpu_the_tools_of_triton_are_checked(
    which: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == which else None)
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    net, gpu = create_model(TINY, 2), torch.device("cuda")
    assert compiled(net, "auto", gpu) is net
    assert f"the network is not compiled; this needs {missing}" in capfd.readouterr().err
    with pytest.raises(InputError, match=f"compile=yes needs {missing}.*, or choose compile=no"):
        compiled(net, "yes", gpu)
    (tmp_path / "Python.h").touch()
    if which:
        assert compiled(net, "auto", gpu) is not net


def test_a_trace_has_the_configured_number_of_steps(open_coded: OpenCoded, tmp_path: Path) -> None:
    net = create_model(TINY, 2).train()
    trainer = Trainer(net, Normalize(), Stepper(create_optimizer(net, OptimConfig()), CPU), CrossEntropy(0.1))
    loader = open_coded(crop=TrainCrop(), shuffle=True, drop_last=True, batch_size=2)
    profiler = StepProfiler(tmp_path / "variant" / "trace.json", 2, torch.device("cpu"))
    trainer.epoch(loader, lambda _: 0.02, "train", profiler)
    events = json.loads((tmp_path / "variant" / "trace.json").read_text())["traceEvents"]
    steps = [event for event in events if str(event.get("name", "")).startswith("Optimizer.step")]
    assert len(steps) == 2
    assert profiler.summary.startswith("2 steps of ") and "waiting for data; trace: " in profiler.summary


def test_an_epoch_too_short_to_trace_leaves_nothing(open_coded: OpenCoded, tmp_path: Path) -> None:
    net = create_model(TINY, 2).train()
    trainer = Trainer(net, Normalize(), Stepper(create_optimizer(net, OptimConfig()), CPU), CrossEntropy(0.1))
    profiler = StepProfiler(tmp_path / "trace.json", 2, torch.device("cpu"))
    trainer.epoch(open_coded(crop=TrainCrop(), shuffle=True, batch_size=12), lambda _: 0.02, "train", profiler)
    assert profiler.summary == "" and not list(tmp_path.iterdir())


def test_the_gpus_share_counts_each_moment_once(tmp_path: Path) -> None:
    """A copy beside a kernel, and an annotation around both, as torch.profiler lists them."""

    def event(start: float, end: float, kind: str = "CUDA", annotation: bool = False) -> SimpleNamespace:
        device = SimpleNamespace(name=kind)
        return SimpleNamespace(
            time_range=SimpleNamespace(start=start, end=end), device_type=device, is_user_annotation=annotation
        )

    events = [event(0, 9e5, annotation=True), event(3e5, 5e5), event(1e5, 4e5), event(0, 9e5, "CPU"), event(2e5, 3e5)]
    profiler = StepProfiler(tmp_path / "trace.json", 2, torch.device("cuda"))
    assert profiler._gpu_share(SimpleNamespace(events=lambda: events), 1.0) == ", the GPU busy 40%"


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(InputError, match="profile=-1"):
        Recipe(profile=-1)

"""Scaling: metrics by hand, mistakes, the record after Ctrl-C, and a whole run of two processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.distributed as dist
from torch import nn

from benchmarks.docs.render import section
from benchmarks.scaling import launcher, worker
from benchmarks.scaling import run as scaling
from benchmarks.scaling.metrics import bus_bandwidth, interconnect, results
from benchmarks.scaling.worker import Spec, _Stepper, measure
from fixres.config.recipe import OptimConfig
from fixres.distributed.process_group import joined
from fixres.models.precision import choose_device, choose_precision
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record
from fixres.training.optimizer import create_optimizer

ROOT = Path(__file__).parents[3]


def job(number: int, round_: int, **speeds: list[float]) -> dict[str, Any]:
    """A job of mode "weak" whose windows had these images a second."""
    windows = {f"weak/{kind}": [[2 * speed, 2.0] for speed in values] for kind, values in speeds.items()}
    all_reduce = {"1000000": [0.5, 0.25, 0.5]} if number > 1 else {"1000000": []}
    return {"round": round_, "num_processes": number, "windows": windows, "all_reduce": all_reduce}


JOBS = [
    job(1, 0, no_sync=[100, 100], end_to_end=[50, 50]),
    job(2, 0, no_sync=[200, 200], sync=[150, 150], end_to_end=[120, 120]),
    job(
        1, 1, no_sync=[10, 10], end_to_end=[8, 8]
    ),  # a machine ten times as slow: the ratios within the round are the same
    job(2, 1, no_sync=[20, 20], sync=[15, 15], end_to_end=[12, 12]),
]


def test_overheads_and_efficiencies_by_hand() -> None:
    one, two = results(JOBS, {"weak": {1: 16, 2: 32}})
    assert (one["batch_per_process"], two["batch_per_process"]) == (16, 16)
    assert one["sync_overhead"] is None and two["sync_overhead"]["value"] == pytest.approx(0.25)
    assert two["data_overhead"]["value"] == pytest.approx(0.2)  # 1 - 120 / 150
    assert one["efficiency_sync"]["value"] == pytest.approx(1)
    assert two["efficiency_sync"]["value"] == pytest.approx(0.75)  # 150 / (2 x 100), 15 / (2 x 10)
    assert two["efficiency_end_to_end"]["value"] == pytest.approx((120 / 100 * 12 / 16) ** 0.5)
    assert two["sync"]["rounds"] == [150, 150, 15, 15] and two["sync"]["value"] == pytest.approx(82.5)


def test_without_a_common_round_there_is_no_efficiency() -> None:
    (two,) = results([JOBS[1], JOBS[2]], {"weak": {2: 32}})
    assert two["efficiency_sync"] is None and two["sync_overhead"]["value"] == pytest.approx(0.25)


def test_bus_bandwidth_is_that_of_nccl_tests() -> None:
    """In its document: 2 (n - 1) / n of the algorithm's bandwidth."""
    assert bus_bandwidth(1000, 2.0, 2) == 500
    assert bus_bandwidth(1000, 2.0, 8) == 875
    (link,) = interconnect(JOBS)
    assert (link["processes"], link["bytes"], link["seconds"]) == (2, 1_000_000, 0.5)
    assert link["bus_bytes_per_second"] == 2_000_000 and link["interval"][0] <= 2_000_000 <= link["interval"][1]


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, target: Path, *words: object) -> None:
    standard = ["--data", folder, "--work-dir", target.parent / "work", "--json", target, "--model", "resnet10t"]
    standard += ["--device", "cpu", "--num-images", 16, "--batch-size", 4, "--train-res", 32]
    monkeypatch.setattr(sys, "argv", ["scaling.py", *map(str, [*standard, *words])])
    scaling.main()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "1,x"], r"processes=.*'x'.* must be a whole number or 'all'"),
        (["--processes", "0"], r"processes=.*0.* must be numbers"),
        (["--processes", "3"], "batch_size=4 does not divide among 3 processes"),
        (["--model", "resnet19", "--processes", "1"], "'resnet19' is not a timm model"),
        (["--engine", "spdl"], "engine='spdl' cannot train"),
        (["--mode", "both"], "mode.*=both must be 'weak' or 'strong'"),
        (["--train-res", "32,64"], "train_res=.*must be a whole number"),
        (["--num-images", "6"], "num_images=6 is less than a batch of 8"),
        (["--data", "/nowhere"], "/nowhere does not exist"),
    ],
)
def test_mistakes_are_reported_before_a_job_starts(
    words: list[str], message: str, coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "run_job", lambda *_: pytest.fail("a job was started"))
    with pytest.raises(InputError, match=message):
        call(monkeypatch, coded_folder, tmp_path / "scaling.json", *words)


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="processes=4 is more than the 2 GPUs here"):
        scaling._check_devices("cuda", 4)
    scaling._check_devices("cuda", 2)


def test_ctrl_c_keeps_the_jobs_that_were_finished(
    coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, dict[str, int]]] = []

    def run_job(spec: Spec, processes: int, _threads: int) -> dict[str, Any]:
        started.append((processes, spec.batches))
        if len(started) == 4:
            raise KeyboardInterrupt
        return {key: value for key, value in JOBS[processes - 1].items() if key != "round"}

    monkeypatch.setattr(scaling, "run_job", run_job)
    target = tmp_path / "scaling.json"
    with pytest.raises(KeyboardInterrupt, match="marked partial"):
        call(monkeypatch, coded_folder, target, "--mode", "weak", "--rounds", 3)
    # Every other round is reversed, so that no number of processes is always first.
    assert started == [(1, {"weak": 4}), (2, {"weak": 8}), (2, {"weak": 8}), (1, {"weak": 4})]
    content = read_record(target, "scaling")
    assert content["partial"] is True and [len(one["no_sync"]["rounds"]) for one in content["results"]] == [2, 4]
    text = section(content)
    assert (
        "| weak | 2 | 4 | 200 | 150 | 120 | 25.0 (25.0 to 25.0) | 20.0" in text and "says nothing about scaling" in text
    )


def command(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Jobs are this Python program, which is called with the spec's path."""
    monkeypatch.setattr(launcher, "_command", lambda _n, spec: [sys.executable, "-c", program, str(spec)])


def spec() -> Spec:
    return Spec("resnet10t", 32, {"weak": 4}, "x", "roc", 1, "cpu", "fp32", "no", 0.1, 1, [], "")


def test_a_failed_job_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, "print('the disk is on fire'); raise SystemExit(5)")
    with pytest.raises(InputError, match="job of 2 processes ended with exit code 5"):
        launcher.run_job(spec(), 2, 1)
    assert "the disk is on fire" in capsys.readouterr().err
    write = "import json, sys; out = json.load(open(sys.argv[1]))['output']; open(out + '.mistake-1-1', 'w')"
    command(monkeypatch, f"{write}.write('lower it'); raise SystemExit(1)")
    with pytest.raises(InputError, match=r"^lower it$"):
        launcher.run_job(spec(), 2, 1)


def test_an_interrupted_job_leaves_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Launched by torchrun, whose processes have sessions of their own."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, signal, time\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "(place / ('rank' + os.environ['RANK'])).write_text(str(os.getpid()))\n"
        "while len(list(place.glob('rank*'))) < 2:\n"
        "    time.sleep(0.01)\n"
        "if os.environ['RANK'] == '0':\n"
        f"    os.kill({os.getpid()}, signal.SIGINT)\n"
        "time.sleep(100)\n"
    )
    torchrun = launcher._command(2, tmp_path)[:-3]
    monkeypatch.setattr(launcher, "_command", lambda *_: [*torchrun, str(program)])
    with pytest.raises(KeyboardInterrupt):
        launcher.run_job(spec(), 2, 1)
    ranks = [int(file.read_text()) for file in tmp_path.glob("rank?")]
    assert len(ranks) == 2 and not any(psutil.pid_exists(rank) for rank in ranks)


def test_without_sync_reaches_ddp(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        net = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        stepper = _Stepper(create_optimizer(net, OptimConfig()), choose_precision("fp32", choose_device("cpu")))
        with stepper.context(net):
            assert net.require_backward_grad_sync is True
        stepper.sync = False
        with stepper.context(net):
            assert net.require_backward_grad_sync is False
    finally:
        dist.destroy_process_group()


_FORKED = """
import sys, timm, torch._dynamo
from benchmarks.scaling import worker
from torch.distributed.run import main
number, spec = sys.argv[1:]
main(["--standalone", "--nproc-per-node", number, "--start-method=fork", "--run-path", worker.__file__, spec])
"""


def _forked(processes: int, spec: Path) -> list[str]:
    """torchrun whose processes are forks of it, so that the imports, which take seconds, are done once."""
    return [sys.executable, "-c", _FORKED, str(processes), str(spec)]


def _alone(spec: Spec, _processes: int, _threads: int) -> dict[str, Any]:
    """The job of one process, in this one: a process of its own imports for ten seconds."""
    with joined(spec.device) as device:
        return measure(spec, device)


@pytest.mark.slow
def test_two_processes_are_measured(
    coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "scaling.json"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert launcher._command(2, target)[-4:] == ["2", "-m", worker.__name__, str(target)]
    monkeypatch.setattr(launcher, "_command", _forked)
    launched = scaling.run_job
    monkeypatch.setattr(scaling, "run_job", lambda spec, *n: (_alone if n[0] == 1 else launched)(spec, *n))
    words = ["--num-images", 24, "--rounds", 1, "--windows", 2, "--seconds", 0.02, "--mode", "strong"]
    call(monkeypatch, coded_folder, target, *words, "--engine", "torch", "--num-workers", 0)
    content = read_record(target, "scaling")
    assert {one["processes"]: one["batch_per_process"] for one in content["results"]} == {1: 4, 2: 2}
    assert content["partial"] is False
    two = content["results"][1]
    assert len(two["no_sync"]["rounds"]) == 2 and all(
        min(two[kind]["rounds"]) > 0 for kind in ("no_sync", "end_to_end")
    )
    assert two["sync_overhead"]["value"] < 1 and two["efficiency_end_to_end"]["value"] > 0
    assert content["gradient_bytes"] == content["interconnect"][-1]["bytes"] > 4e6
    assert "| strong | 2 | 2 |" in capsys.readouterr().out
    assert not list(tmp_path.glob("scaling-*"))

"""Detectors and segmentation networks trained by two processes, of which one is killed. With gloo, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.pipelines.runtime.exit_codes import EXIT_LOST_PEER
from tests.fixres.families import RESNET, create
from tests.fixres.runs import Server, lives, serving
from tests.fixres.transfer.layouts import write_folders, write_voc

_KWARGS = {"channels": [8, 16, 24, 32], "stem_width": 8}
_SHARED = ["--epochs", "3", "--optim.batch-size", "4", "--num-workers", "0", "--device", "cpu", "--precision", "fp32",
           "--fault-tolerance.steps", "1", "--eval-every", "2"]  # fmt: skip
_OWN = {
    "detect": ["--min-sizes", "48,64", "--max-size", "96", "--fpn-channels", "16", "--head-features", "16",
               "--anchor-sizes", "8,16,32,48,64"],
    "segment": ["--base-size", "48", "--crop-size", "48"],
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as made:
        yield made


def _end(server: Server, children: list[int]) -> None:
    codes = [server.end(child) for child in children]
    assert not any(codes), (codes, server.errors())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "write", "metric"), [("detect", write_voc, "ap"), ("segment", write_folders, "mean_iou")]
)
def test_one_of_two_is_killed_and_the_resumed_run_has_the_same_weights(
    task: str, write: object, metric: str, tmp_path: Path, server: Server
) -> None:
    net = create(RESNET._replace(kwargs=_KWARGS))
    save_checkpoint(tmp_path / "net.pt", net, CheckpointInfo("resnet10t", _KWARGS, ("a", "b"), 32, 32, 1.0))
    data = write(tmp_path / "data", 12, 3)
    call = ["--backbone", tmp_path / "net.pt", "--data", data, *_SHARED, *_OWN[task], "--output"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _end(server, server.start_all(2, *call, whole, tool=task))

    children = server.start_all(2, *call, killed, tool=task)
    while len(list(killed.glob("states/*"))) < 2 and all(map(lives, children)):
        time.sleep(0.001)
    os.kill(children[1], signal.SIGKILL)
    codes = [server.end(child) for child in children]
    assert codes == [EXIT_LOST_PEER, -signal.SIGKILL], server.errors()
    assert not (killed / "trained.pt").exists()

    _end(server, server.start_all(2, *call, killed, "--resume", "auto", tool=task))
    one, two = (torch.load(run / "trained.pt", weights_only=True)["state_dict"] for run in (whole, killed))
    assert all(torch.equal(value, two[name]) for name, value in one.items()) and one.keys() == two.keys()
    reports = [json.loads((run / "report.json").read_text()) for run in (whole, killed)]
    assert reports[0]["result"] == reports[1]["result"] and reports[0]["result"][metric] is not None
    assert reports[0]["environment"]["num_processes"] == 2 and reports[0]["curve"] == reports[1]["curve"]
    steps = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert [line["num_images"] for line in steps if line["kind"] == "train"] == [12] * 3

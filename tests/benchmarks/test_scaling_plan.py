"""Many GPUs on paper: the sum by hand, what must hold of any sum, and where the inputs come from."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import scaling_plan
from benchmarks.records import read_record
from benchmarks.scaling_model import Inputs, breaks, exchange_seconds, failure_share, project, storage_seconds
from benchmarks.tables import section
from pipelines.spec import InputError

HAND = Inputs(
    images=10_000, epochs=2, step=100, gradients=1e8, local=10, batch_limit=1000, gpus_per_node=8, link=1e10, nic=1e9,
    latency=1e-3, overlap=0.5, cores=2, loader=10, image_bytes=1e5, file_bytes=1e9, memory=2e9, storage=1e7, iops=1e6,
    mtbf=10_000, restart=100, write=2,
)  # fmt: skip


def test_sixteen_gpus_by_hand() -> None:
    # 2 x 15/16 x 1e8 / 1e9 = 0.1875 s; 4 hops there and back for each of 4 buckets: 32 ms
    assert exchange_seconds(HAND, 16) == pytest.approx(0.2195)
    assert storage_seconds(HAND, 160, 2) == pytest.approx(1.6)  # 16 MB at 10 MB/s
    # 2 s in every 202; 100 s lost and 100 s of restart in every 5000
    assert failure_share(HAND, 2) == pytest.approx(2 / 202 + 0.04)
    found = project(HAND, 16)
    assert (found.local, found.steps, found.first) == (10, 62, "exchange")
    # 0.1 s of computing, of which half hides the exchange: 0.2695; data 10 / 20 = 0.5; storage 1.6, then half of it
    assert found.lost["exchange"] == pytest.approx(1 - 0.1 / 0.2695)
    assert found.lost["data"] == pytest.approx(1 - 0.2695 / 0.5)
    assert found.lost["storage"] == pytest.approx(1 - 0.5 / 1.2)
    assert found.first_seconds == pytest.approx(62 * 1.6 / (1 - 2 / 202 - 0.04))
    assert found.epoch_seconds == pytest.approx(78.3076, rel=1e-5)
    assert found.copy_seconds == pytest.approx(200)  # 1 GB to each of 2 nodes at 10 MB/s
    assert project(replace(HAND, storage=1e12), 16).copy_seconds == pytest.approx(1)  # both at once, a card each


def test_a_gpu_alone_exchanges_nothing_and_a_node_uses_its_own_links() -> None:
    assert exchange_seconds(HAND, 1) == 0
    assert exchange_seconds(HAND, 8) == pytest.approx(2 * 7 / 8 * 1e8 / 1e10 + 2 * 3 * 4 * 1e-3)


def test_other_bottlenecks_of_the_storage() -> None:
    assert storage_seconds(replace(HAND, iops=10), 160, 2) == 16
    assert storage_seconds(replace(HAND, nic=1e6), 160, 2) == pytest.approx(8)
    small = project(replace(HAND, memory=1e8), 16)  # the file does not fit: every epoch is as the first
    assert small.first_seconds == pytest.approx(small.epoch_seconds)


def test_the_batch_limit() -> None:
    found = project(replace(HAND, gradients=1, latency=0, cores=1e6, storage=1e12, iops=1e12, nic=1e12, mtbf=1e12), 128)
    assert (found.local, found.steps, found.first) == (7, 10_000 // 896, "batch")
    with pytest.raises(InputError, match="501 GPUs are too many"):
        project(HAND, 501)
    with pytest.raises(InputError, match="fail before they have saved"):
        project(replace(HAND, mtbf=100), 16)


@given(st.integers(1, 8), st.floats(0, 1), st.floats(1, 1e4), st.floats(1e6, 1e12), st.floats(1e-3, 100))
def test_the_shares_explain_all_of_the_time(
    doublings: int, overlap: float, loader: float, storage: float, cores: float
) -> None:
    inputs = replace(HAND, overlap=overlap, loader=loader, storage=storage, cores=cores, mtbf=1e7)
    found, ideal = project(inputs, 2**doublings), replace(HAND, mtbf=1e7).step
    left = math.prod(1 - share for share in found.lost.values())
    assert found.efficiency == pytest.approx(left)
    assert all(0 <= share < 1 for share in found.lost.values())
    seconds = found.steps * found.local / ideal  # of nothing but computing
    assert found.epoch_seconds * found.efficiency == pytest.approx(seconds)
    assert found.first_seconds >= found.epoch_seconds * (1 - 1e-9)


def test_where_things_break_is_where_they_begin_to_cost() -> None:
    found = breaks(HAND)
    assert found["batch"] == 128 and found["data"] == 8
    for cause in ("exchange", "storage", "failures"):
        gpus = found[cause]
        assert gpus is not None and project(HAND, gpus).lost[cause] >= 0.05
        assert gpus == 8 or project(HAND, gpus // 2).lost[cause] < 0.05


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling_plan.py", *map(str, words)])
    scaling_plan.main()


def test_every_input_has_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "plan.json"
    call(monkeypatch, "--gpus", "8,16", "--model", "resnet10t", "--step", "128:1000", "--nic", 25, "--json", target)
    content = read_record(target, "scaling_plan")
    inputs = {one["name"]: one for one in content["inputs"]}
    assert set(inputs) == set(Inputs.__dataclass_fields__)
    assert (inputs["step"]["value"], inputs["step"]["source"]) == (1000, "given: 128:1000")
    assert (inputs["nic"]["value"], inputs["nic"]["unit"], inputs["nic"]["source"]) == (25, "GB/s", "given")
    assert inputs["storage"]["source"] == "assumed" and inputs["loader"]["source"].startswith("throughput.json")
    throughput = read_record(scaling_plan.RESULTS / "throughput.json")
    roc = next(one for one in throughput["results"] if (one["engine"], one["res"]) == ("roc", 128))
    assert inputs["loader"]["value"] == pytest.approx(roc["images_per_second"] / throughput["settings"]["threads"])
    assert inputs["image_bytes"]["value"] == pytest.approx(roc["bytes_per_image"] / 1000)
    assert content["results"][0]["steps"] == 1281167 // 2048 and content["engines"]["roc"] == pytest.approx(
        1000 / inputs["loader"]["value"]
    )
    text = capsys.readouterr().out
    assert "(projected)" in text and "fresh(e)" in text and "| nic | 25 | GB/s | given |" in text
    assert "Projected, not measured" in section(content) and "Measured on" not in section(content)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "many"], "gpus must be numbers"),
        (["--model", "resnet10t"], "no GPU step speed of resnet10t is recorded; give --step"),
        (["--step", "fast"], "step='fast' must be RESOLUTION:IMAGES_PER_SECOND"),
        (["--engine", "spdl"], "engine='spdl' has no recorded speed"),
        (["--overlap", "2"], "overlap=2.0 is a share"),
        (["--nic", "0"], "nic=0.0 must be above 0"),
        (["--gpus", "8192"], "8192 GPUs are too many"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_plan, "_records", lambda _: [])
    with pytest.raises(InputError, match=message):
        call(monkeypatch, *words)

"""The throughput benchmark as a user runs it: its record, Ctrl-C, remaining processes, a repeat."""

from __future__ import annotations

import os
import signal
import sys
import tarfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import torch
from PIL import Image

from benchmarks.docs.render import section
from benchmarks.harness.datasets import BenchmarkFiles, RepeatedSource
from benchmarks.throughput import run as throughput
from benchmarks.throughput.engine_client import EngineClient
from benchmarks.throughput.engines import (
    DECODE_BOUND,
    KINDS,
    Engine,
    Stream,
    can_run,
    check_engines,
    kind_of,
    with_third_party,
)
from benchmarks.throughput.report import write_loader_report
from benchmarks.throughput.tables import as_text
from benchmarks.throughput.third_party import _Shuffled
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record
from tests.fixres.runs import Server, all_end, lives

QUICK = ("--train-res", "32", "--num-images", "40", "--batch-size", "8", "--num-workers", "1", "--seconds", "0.05")


def start(server: Server, data: Path, folder: Path, *words: str) -> int:
    """Its output is in FOLDER/output; returns its process number."""
    call = ("--data", data, "--work-dir", folder / "work", *QUICK, *words)
    return server.start(*call, tool="benchmarks.throughput", OUTPUT=folder / "output")


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children():
        with suppress(psutil.Error):  # it has ended meanwhile
            if "benchmarks.throughput.engine_worker" in child.cmdline():
                found.append(child)
    return found


@pytest.mark.slow
def test_ctrl_c_keeps_the_results_so_far_and_leaves_no_process(
    server: Server, coded_folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "speeds.json"
    words = ("--engines", "torchvision,torch", "--rounds", "1000000", "--json", str(target))
    process = start(server, coded_folder, tmp_path, *words)
    watched, until = psutil.Process(process), time.monotonic() + 120
    while len(workers := workers_of(watched)) < 2 and time.monotonic() < until and lives(process):
        time.sleep(0.1)
    # Both have had their first batch and are interleaved: each is seen to be stopped again and again.
    turns, before = Counter[int](), set[int]()
    while (len(turns) < 2 or min(turns.values()) < 8) and time.monotonic() < until and lives(process):
        stopped = {one.pid for one in workers if one.status() == psutil.STATUS_STOPPED}
        turns.update(stopped - before)
        before = stopped
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    code, errors = server.end(process), server.errors()
    assert code == 130, errors
    assert errors.count("\n") == 1 and f"{target}, marked partial" in errors
    content = read_record(target, "throughput")
    assert content["partial"] is True and {one["engine"] for one in content["results"]} == {"torchvision", "torch"}
    assert all(len(one["rounds"]) == len(content["results"][0]["rounds"]) > 0 for one in content["results"])
    assert len(workers) == 2 and all_end((one.pid for one in workers), 10)
    assert "Interrupted" in section(content) and "torchvision" in as_text(content)
    write_loader_report(content, tmp_path / "report.html")
    assert "was interrupted" in (tmp_path / "report.html").read_text()


def _all_stopped(pids: list[int]) -> bool:
    return all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids)


@pytest.mark.slow
def test_a_stopped_engine_does_nothing_and_counts_its_work(coded_folder: Path) -> None:
    with EngineClient(Engine("torch", coded_folder, 4, 1, "cpu"), 32) as client:
        client.set_resolution(48)
        client.window(0.1)
        family = [client._process.pid, *(child.pid for child in psutil.Process(client._process.pid).children(True))]
        until = time.monotonic() + 10  # a signal takes effect when its process is scheduled
        while not _all_stopped(family) and time.monotonic() < until:
            time.sleep(0.01)
        assert _all_stopped(family)
        before = [psutil.Process(pid).cpu_times()[:2] for pid in family]
        time.sleep(0.3)
        assert [psutil.Process(pid).cpu_times()[:2] for pid in family] == before
        window = client.window(0.2)
        assert window.seconds >= 0.2 and window.num_images % 4 == 0 and window.num_images > 0
        after = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in family)
        assert window.cpu_seconds == pytest.approx(after - sum(map(sum, before)), abs=0.06)
        costs = client.costs()
        sizes = [file.stat().st_size for file in coded_folder.rglob("*") if file.is_file()]
        assert min(sizes) < costs["bytes_per_image"] < max(sizes) and costs["pixels_decoded_per_image"] > 1000
        assert client.memory_bytes_peak > client.memory_bytes_before > 5e7
    assert all_end(family, 60)


def test_after_the_release_of_its_files_an_engine_has_no_work_left(coded_folder: Path) -> None:
    """Workers finish batches of an epoch that has ended; a window with a cold cache must not wait for them."""
    with EngineClient(Engine("torch", coded_folder, 4, 1, "cpu"), 2048) as client:
        client.window(0.01)
        client.release_files()
        family = [psutil.Process(client._process.pid), *psutil.Process(client._process.pid).children(recursive=True)]
        before = [sum(process.cpu_times()[:2]) for process in family]
        client._signal(signal.SIGCONT)
        time.sleep(0.5)
        assert sum(sum(process.cpu_times()[:2]) for process in family) - sum(before) < 0.1
        assert client.epoch(20.0).num_images == 24


def test_the_storage_of_a_record_is_that_of_the_engines_files(
    coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(throughput, "conditions", lambda data, _: asked.append(data) or {})
    monkeypatch.setattr(throughput, "EngineClient", Mock(side_effect=InputError("the files are made")))
    words = ["--data", coded_folder, "--work-dir", tmp_path / "work", *QUICK, "--engines", "roc", "--rounds", 1]
    monkeypatch.setattr(sys, "argv", ["throughput", *map(str, words)])
    with pytest.raises(InputError, match="the files are made"):
        throughput.main()
    assert asked == [tmp_path / "work"] and list((tmp_path / "work").rglob("roc.beton"))


def test_spdl_decodes_no_image_of_a_short_last_batch() -> None:
    samples = [(Path(str(k)), 0) for k in range(23)]
    drawn = [list(_Shuffled(samples, 5)) for _ in range(2)]
    assert [len(set(one)) for one in drawn] == [20, 20] and drawn[0] != drawn[1]


def test_an_engine_that_fails_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.beton").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match=r"broken\.beton"):
        EngineClient(Engine("torch", tmp_path / "broken.beton", 4, 1, "cpu"), 32)
    with pytest.raises(InputError, match="engine='nothing' cannot be measured"):
        check_engines(["torch", "nothing"])


def test_any_format_gives_the_same_images(coded_folder: Path, tmp_path: Path) -> None:
    convert(coded_folder, tmp_path / "c.beton", ConversionConfig("ffcv", num_workers=0, progress=False))
    convert(coded_folder, tmp_path / "shards", ConversionConfig("webdataset", num_workers=0, progress=False))
    beton, shards = (RepeatedSource(tmp_path / name, 50) for name in ("c.beton", "shards"))
    assert beton.num_different == shards.num_different == 24 and len(beton) == 50
    assert all(beton.read(i) == shards.read(i) == beton.read((i + 24) % 50 if i < 24 else i - 24) for i in range(48))
    files = BenchmarkFiles(tmp_path / "shards", tmp_path / "work", 30, 500, 90)
    folder, again = open_stored(files.path("folder")), open_stored(files.path("shards"))
    by_name = sorted(zip((folder.read(i) for i in range(30)), folder.labels.tolist(), strict=True))
    assert sorted(zip((bytes(again.read(i)) for i in range(30)), again.labels.tolist(), strict=True)) == by_name
    assert len(list(files.path("shards").glob("*.tar"))) >= 3
    published, tar = (files.path(kind_of(name, True)) for name in ("torchvision", "turboloader"))
    with tarfile.open(tar) as opened:
        members = sorted(opened.extractfile(one).read() for one in opened.getmembers())
    assert sorted(file.read_bytes() for file in published.rglob("*.jpg")) == members
    assert members == sorted(shards.read(i) for i in range(30))
    with pytest.raises(InputError, match="does not exist"):
        RepeatedSource(tmp_path / "nowhere", 5)


@pytest.mark.slow
def test_the_whole_benchmark(server: Server, coded_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "speeds.json"
    words = ("--engines", "roc,torch", "--rounds", "3", "--cache", "both", "--cold-cache-rounds", "1")
    words += ("--cold-cache-seconds", "0.3", "--json", str(target))
    assert server.end(start(server, coded_folder, tmp_path, *words)) == 0, server.errors()
    output = (tmp_path / "output").read_text()
    assert "decode-only bound" in output and "cold page cache" in output
    content = read_record(target, "throughput")
    assert {one["engine"] for one in content["startup"]} == {"roc", "torch"} and DECODE_BOUND not in content[
        "file_bytes"
    ]
    assert all(one["cpu_seconds_per_image"] > 0 and one["bytes_per_image"] > 0 for one in content["results"])
    assert all(one["first_batch_seconds"] > 0 and one["memory_bytes_peak"] > 1e8 for one in content["startup"])
    assert content["environment"]["page_cache"] == "both" and content["partial"] is False
    assert all(one["is_cold"] == (one["resident_share"] <= 0.05) for one in content["cold_cache"])
    (ratio,) = (one["ratio"] for one in content["ratios"] if one["engine"] == "roc")
    assert ratio > 0 and all(len(one["rounds"]) == 3 for one in content["results"])


def test_third_party_loaders_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.throughput.engines.can_run", lambda name: name in ("ffcv", "dali", "torchvision"))
    engines, missing = with_third_party(["roc", "third-party", "dali"])
    assert engines == ["roc", "ffcv", "torchvision", "dali"] and "turboloader" in missing and "dali" not in missing
    assert with_third_party(["roc"]) == (["roc"], [])


@pytest.mark.parametrize("engine", ["dali-dynamic", "simplejpeg", "torchcodec", "turboloader"])
def test_third_party_loaders_give_whole_batches_with_their_labels(engine: str, tmp_path: Path) -> None:
    if not can_run(engine):
        pytest.skip(f"{engine} is not installed")
    for k in range(10):  # the class is the gray level
        Image.new("L", (40, 40), 25 * k).save(tmp_path / f"{k}.png")
    files = BenchmarkFiles(tmp_path, tmp_path / "work", 20, 500, 95)
    stream = Stream(Engine(engine, files.path(KINDS[engine]), 8, 0, "cpu"), 16)
    for _ in range(3):
        images, labels = stream.batch()
        levels = images.flatten(1).float().mean(1)
        if images.dtype == torch.float32:  # normalized
            levels = levels * 0.2253 * 255 + 0.4490 * 255
        assert len(labels) == 8 and (levels - 25 * labels).abs().max() < 4
    stream.close()

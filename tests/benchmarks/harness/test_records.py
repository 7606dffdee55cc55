"""Records come back as they were written, damaged files are refused, partial records are marked."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.harness.records import RESULTS, command, record
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.spec import InputError
from fixres.reporting.records import VERSION, read_record


def one(target: Path | None, partial: bool = False) -> dict:
    settings = {"data": Path("photos"), "res": [128], "work_dir": Path("private"), "json": target}
    return record("throughput", settings, {"cpu": "x"}, "A note.", partial, results=[])


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = one(tmp_path / "deep" / "speeds.json")
    write_json(tmp_path / "deep" / "speeds.json", content)
    again = read_record(tmp_path / "deep" / "speeds.json", "throughput")
    assert again == json.loads(json.dumps(content))
    assert (again["version"], again["name"], again["settings"]["data"]) == (VERSION, "speeds", "photos")
    assert (
        "work_dir" not in again["settings"]
        and again["partial"] is False
        and "load_average_at_end" in again["environment"]
    )


def test_a_partial_record_is_written_marked_and_ends_like_ctrl_c(tmp_path: Path) -> None:
    target = tmp_path / "speeds.json"

    def end(target: Path | None, partial: bool) -> None:
        command(lambda: argparse.Namespace(json=target), lambda _: one(target, partial), lambda _: "a table")()

    with pytest.raises(KeyboardInterrupt, match=r"speeds\.json, marked partial"):
        end(target, partial=True)
    assert read_record(target)["partial"] is True and "Interrupted" in read_record(target)["note"]
    with pytest.raises(KeyboardInterrupt, match="nothing was kept"):
        end(None, partial=True)
    end(target, partial=False)
    assert read_record(target)["partial"] is False


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "kind": "throughput"}', '{"version": 3}', "\udcff"])
def test_a_file_that_is_not_a_record_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"x\.json is not a record"):
        read_record(file)


def test_missing_records_and_other_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json does not exist; make it with the benchmark"):
        read_record(tmp_path / "x.json", "train_step")
    with pytest.raises(InputError, match="kind 'fidelity'; kind 'throughput' is needed"):
        read_record(RESULTS / "fidelity.json", "throughput")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_all_records_in_the_repository_can_be_read(path: Path) -> None:
    assert read_record(path)["name"] == path.stem

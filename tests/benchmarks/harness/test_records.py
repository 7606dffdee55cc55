"""Records come back as they were written, damaged files are refused, partial records are marked."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.harness.options import BenchmarkOptions, PhotoOptions, StepOptions, WindowOptions
from benchmarks.harness.records import RESULTS, command, record
from fixres.config.parsing import parse
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


def test_a_partial_record_is_written_marked_and_ends_like_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "speeds.json"

    def end(target: Path | None, partial: bool) -> None:
        monkeypatch.setattr(sys, "argv", ["x", *(["--json", str(target)] if target else [])])
        command(BenchmarkOptions, "", lambda options: one(options.json, partial), lambda _: "a table")()

    with pytest.raises(KeyboardInterrupt, match=r"speeds\.json, marked partial"):
        end(target, partial=True)
    assert read_record(target)["partial"] is True and "Interrupted" in read_record(target)["note"]
    with pytest.raises(KeyboardInterrupt, match="nothing was kept"):
        end(None, partial=True)
    end(target, partial=False)
    assert read_record(target)["partial"] is False and "a table" in capsys.readouterr().out
    end(Path("-"), partial=False)
    assert json.loads(capsys.readouterr().out)["name"] == "throughput"


@dataclass(frozen=True, kw_only=True)
class Options(PhotoOptions, StepOptions, WindowOptions):
    """Options of a benchmark that has all groups."""

    train_res: list[int] = field(default_factory=lambda: [128])
    num_workers: int = 1


def test_records_keep_the_names_that_they_had_before_the_options_got_theirs() -> None:
    settings = Options(data=Path("x"), num_workers=3).settings()
    assert (settings["res"], settings["threads"], settings["num_images"]) == ([128], 3, 1500)
    assert not {"train_res", "num_workers"} & settings.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "rounds=0 must be at least 1"),
        (["--batch-size", "1"], "batch_size=1 must be at least 2"),
        (["--seconds", "0"], "seconds=0.0 must be above 0"),
        (["--seconds", "nan"], "seconds=nan must be above 0"),
        (["--train-res", "128,4"], "resolution=4 is not supported"),
        (["--train-res", "128,128"], "train_res: 128 is named twice"),
        (["--num-images", "8"], "num_images=8 is less than a batch of 32; raise it"),
        (["--precision", "fp8"], "precision=fp8 must be 'auto', 'fp32', 'bf16' or 'fp16'"),
        (["--threads", "3"], "unknown option --threads, did you mean --num-workers?"),
        (["--res", "3"], "unknown option --res, did you mean --train-res?"),
        (["--json", "/"], "/ is a folder; choose a file name"),
    ],
)
def test_mistakes_in_shared_options_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        parse(Options, ["--data", "x", *words])
    assert "\n" not in str(caught.value)


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

"""Every command line: mistakes in the call are one line and exit code 2, `--help` is clean."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

import pytest

from fixres.pipelines.runtime.cli import Parser, number_or_inf, output_file, output_folder
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, run
from fixres.pipelines.spec import InputError

ROOT = Path(__file__).resolve().parents[1]
_CHILDREN = {"engine_worker", "isolated_run", "worker"}  # started by programs, not by users


def _name(path: Path) -> str:
    """The module that has the command's `main`; a package's `__main__.py` calls that of its `run`."""
    module = path.with_name("run.py") if path.name == "__main__.py" else path
    return ".".join(module.relative_to(ROOT).with_suffix("").parts)


COMMANDS = sorted(
    _name(path)
    for folder in ("tools", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
    and "run_command(" not in path.read_text()
    and path.stem not in _CHILDREN
)


def writes_record(name: str) -> bool:
    source = (ROOT / f"{name.replace('.', '/')}.py").read_text()
    return '"--json", type=' in source or "json=None" in source


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *arguments: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [str(ROOT / f"{name.replace('.', '/')}.py"), *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(module.main)
    printed = capsys.readouterr()
    return int(end.value.code or 0), printed.out, printed.err


def test_there_are_command_lines() -> None:
    assert len(COMMANDS) >= 16


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = call(monkeypatch, capsys, name, "--no-such-flag")
    assert (code, out, len(error.splitlines())) == (EXIT_INPUT, "", 1), error
    assert error.startswith(f"{name.split('.')[-1]}.py: ") and error.endswith("; see --help\n")
    assert "usage" not in error and len(error) < 300


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_clean(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = call(monkeypatch, capsys, name, "--help")
    assert (code, error) == (0, "") and out.startswith("usage: ") and "--help" in out


@pytest.mark.parametrize("name", filter(writes_record, COMMANDS))
def test_a_record_that_cannot_be_written_is_an_error_before_the_measurement(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    for place, message in (
        (tmp_path, "is a folder; choose a file name"),
        (tmp_path / "file" / "x.json", "is a file, not a folder"),
    ):
        code, out, error = call(monkeypatch, capsys, name, "--json", place)
        assert (code, out, len(error.splitlines())) == (EXIT_INPUT, "", 1), error
        assert "argument --json: " in error and message in error


def test_an_output_is_looked_at_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert output_file(str(tmp_path / "new" / "x.json")) == tmp_path / "new" / "x.json"
    assert output_file(str(tmp_path / "file")) == tmp_path / "file"
    assert output_folder(str(tmp_path)) == tmp_path and output_folder(str(tmp_path / "a" / "b")).name == "b"
    for kind, place in (
        (output_file, "."),
        (output_folder, "file"),
        (output_folder, "file/b"),
        (output_file, "file/b"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="folder"):
            kind(str(tmp_path / place))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_takes_no_files_is_the_systems_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError) as caught:
        output_file(str(tmp_path / "x.json"))
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "many", "x"], "argument --count: invalid int value: 'many'; see --help"),
        (["--rate", "nan", "x"], "argument --rate: invalid float value: 'nan'; see --help"),
        (["--rate", "-inf", "x"], "expected one argument|invalid float value"),
        (["--rate=inf", "x"], "argument --rate: invalid float value: 'inf'"),
        (["--zoom", "nan", "x"], "argument --zoom: invalid number_or_inf value: 'nan'"),
        (["--kind", "c", "x"], "argument --kind: invalid choice: 'c'"),
        ([], "the following arguments are required: place"),
    ],
)
def test_the_parser_names_the_option(arguments: list[str], message: str) -> None:
    parser = Parser("Does something.")
    parser.add_argument("place")
    parser.add_argument("--count", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--zoom", type=number_or_inf)
    parser.add_argument("--kind", choices=("a", "b"))
    with pytest.raises(InputError, match=message):
        parser.parse_args(arguments)
    sound = parser.parse_args(["--rate", "0.5", "--zoom", "inf", "x"])
    assert (sound.rate, sound.zoom, sound.place) == (0.5, float("inf"), "x")

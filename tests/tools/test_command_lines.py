"""Every command line of the house: mistakes in the call are one line and exit code 2, `--help` is clean."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from pipelines.arguments import Parser, number_or_inf
from pipelines.console import EXIT_INPUT, run
from pipelines.spec import InputError

ROOT = Path(__file__).resolve().parents[2]
_CHILDREN = {"contender_process", "scaling_worker", "training_process"}  # started by programs, not by people
COMMANDS = sorted(
    f"{folder}.{path.stem}"
    for folder in ("tools", "benchmarks")
    for path in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text() and path.stem not in _CHILDREN
)


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
    assert len(COMMANDS) >= 28


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = call(monkeypatch, capsys, name, "--no-such-flag")
    assert (code, out, len(error.splitlines())) == (EXIT_INPUT, "", 1), error
    assert error.startswith(f"{name.split('.')[1]}.py: ") and error.endswith("; see --help\n")
    assert "usage" not in error and len(error) < 300


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_clean(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = call(monkeypatch, capsys, name, "--help")
    assert (code, error) == (0, "") and out.startswith("usage: ") and "--help" in out


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

"""Every command line: mistakes in the call are one line and exit code 2, `--help` is clean."""

from __future__ import annotations

import importlib
import os
import sys
import typing
from collections import defaultdict
from pathlib import Path

import pytest

from fixres.cli import main
from fixres.config.options import Option, options
from fixres.pipelines.runtime.atomic_files import check_target
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, run
from fixres.pipelines.spec import InputError
from tests.fixres.cli import test_command

ROOT = Path(__file__).resolve().parents[1]
_CHILDREN = {"allocator_worker", "engine_worker", "isolated_run", "worker"}  # started by programs, not by users
_LIGHT = {"gpu_decoder"}  # runs where the parser's packages are not installed


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
    and path.stem not in _CHILDREN | _LIGHT
)


def kind_of(name: str, monkeypatch: pytest.MonkeyPatch) -> type:
    """The dataclass of a program's options, which `--help` describes."""
    found: list[type] = []
    monkeypatch.setattr("fixres.config.parsing.print_help", lambda kind, *_: found.append(kind))
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(name).main()
    return found[0]


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


@pytest.mark.parametrize("name", COMMANDS)
def test_a_record_that_cannot_be_written_is_an_error_before_the_measurement(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = options(kind_of(name, monkeypatch))
    if "json" not in known:
        return
    (tmp_path / "file").write_text("no folder")
    needed = [word for option in known.values() if option.required for word in (option.flag, tmp_path / "file")]
    for place, message in (
        (tmp_path, "is a folder; choose a file name"),
        (tmp_path / "file" / "x.json", "is a file, not a folder"),
    ):
        code, out, error = call(monkeypatch, capsys, name, *needed, "--json", place)
        assert (code, out, len(error.splitlines())) == (EXIT_INPUT, "", 1), error
        assert message in error


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_description(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options(kind_of(name, monkeypatch)).values():
        assert option.schema.get("description"), option.name


def _base(option: Option) -> set[str]:
    """What kind of value an option takes; a single value and a list of them are one kind."""
    found = set()
    for kind in option.kinds:
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        names = {int: "number", float: "number", str: "text", Path: "text", bool: "switch"}
        if origin is typing.Literal or (inner and typing.get_origin(inner[0]) is typing.Literal):
            found.add("text")
        elif origin in (list, tuple) and not typing.get_origin(inner[0]):
            found.add(names[inner[0]])
        else:
            found.add(names.get(kind, str(origin or kind)))
    return found


_SYNONYMS = (
    {"output", "out", "run_dir", "dest_dir"},
    {"model", "checkpoint", "weights", "network"},
    {"num_workers", "threads", "workers", "processes_per_loader"},
    {"test_res", "test_resolution", "test_size", "resolution_test"},
    {"train_res", "res", "resolution", "resolutions", "train_resolution", "size"},
    {"num_images", "num", "sample", "samples", "num_samples"},
    {"data", "path", "folder", "dataset"},
    {"batch_size", "batch", "bs"},
)


def test_no_option_has_two_names_or_two_meanings(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all command lines together: those of `fixres`, of the benchmarks and of tools that need the benchmarks."""
    kinds: dict[str, dict[str, set[str]]] = defaultdict(dict)
    commands = {name: kind_of(name, monkeypatch) for name in COMMANDS}
    commands |= {name: test_command.kind_of(name) for name in main.COMMANDS}
    for command, kind in commands.items():
        known = options(kind)
        assert len({option.path for option in known.values()}) == len(known), command
        for name, option in known.items():
            kinds[name][command] = _base(option)
    for name, found in kinds.items():
        assert set.intersection(*found.values()), (name, found)
    for group in _SYNONYMS:
        assert len(group & set(kinds)) == 1, group & set(kinds)


def test_an_output_is_looked_at_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for target, folder in (("new/x.json", False), ("file", False), (".", True), ("a/b", True)):
        check_target(tmp_path / target, folder)
    for target, folder in ((".", False), ("file", True), ("file/b", True), ("file/b", False)):
        with pytest.raises(InputError, match="folder"):
            check_target(tmp_path / target, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_takes_no_files_is_the_systems_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError) as caught:
        check_target(tmp_path / "x.json")
    assert caught.value.filename == str(tmp_path)

"""The command `fixres`: its sub-commands, their options, and mistakes in a call."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from fixres.cli.main import COMMANDS, dispatch, module
from fixres.config.jobs import ActivationsJob, EvaluateJob, ExtractJob, FinetuneJob
from fixres.config.options import options
from fixres.config.parsing import RecipeOptions
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, run

ROOT = Path(__file__).resolve().parents[3]
Fixres = Callable[..., tuple[int, str, str]]


def kind_of(command: str) -> type:
    """The dataclass of a command's options."""
    jobs = {"train": RecipeOptions, "evaluate": EvaluateJob, "extract": ExtractJob, "finetune": FinetuneJob,
            "activations": ActivationsJob}  # fmt: skip
    if command in jobs:
        return jobs[command]
    returned = typing.get_type_hints(module(command).parse)["return"]
    assert is_dataclass(returned)
    return returned


@pytest.fixture
def fixres(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fixres:
    """Calls the command: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fixres", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            run(lambda: dispatch(sys.argv[1:]))
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_help_lists_the_commands_and_an_unknown_one_gets_the_nearest(fixres: Fixres) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        code, out, error = fixres(*arguments)
        assert (code, error) == (0, "") and all(f"  {name} " in out for name in COMMANDS)
    assert fixres("--version")[1].startswith("roc-fixres 0.")
    code, out, error = fixres("evalute", "x.pt")
    assert (code, out) == (EXIT_INPUT, "")
    assert error.startswith("fixres: unknown command evalute; did you mean evaluate? There are train, index, convert, ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_setting_with_a_description(command: str, fixres: Fixres) -> None:
    code, out, error = fixres(command, "--help")
    assert (code, error) == (0, "") and out.startswith(f"usage: fixres {command} ")
    for option in options(kind_of(command)).values():
        assert option.schema.get("description"), option.name
        assert option.positional or option.flag in out, option.name


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_line(command: str, fixres: Fixres) -> None:
    code, out, error = fixres(command, "--no-such-option")
    assert (code, out, len(error.splitlines())) == (EXIT_INPUT, "", 1)
    assert error.startswith(f"fixres {command}: unknown option --no-such-option") and error.endswith("see --help\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_underscores_are_hyphens_and_a_typo_gets_the_nearest(command: str, fixres: Fixres) -> None:
    named = [one for one in options(kind_of(command)).values() if "-" in one.flag[2:] and "NAME" not in one.path]
    for option in named[:2]:
        for spelled in (option.flag, f"--{option.name}"):
            assert fixres(command, spelled)[2] == "" or "unknown" not in fixres(command, spelled)[2]
        error = fixres(command, f"{option.flag}x", "1")[2]
        assert f"unknown option {option.flag}x, did you mean {option.flag}? see --help" in error


def test_help_of_every_command_imports_no_torch() -> None:
    code = f"""
import json, sys
from fixres.cli.main import module
for command in {list(COMMANDS)}:
    try:
        module(command).parse(["--help"])
    except SystemExit:
        pass
print(json.dumps([name for name in ("torch", "numba", "timm", "matplotlib") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_settings_of_the_data_are_options_of_one_name_in_every_command() -> None:
    for command in ("train", "evaluate", "finetune", "extract", "activations"):
        names = options(kind_of(command))
        assert {"data", "engine", "num_workers", "work_dir"} <= set(names), command
        assert not {"data.path", "data.engine", "model.name"} & set(names)


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.stem)
def test_tools_call_commands(path: Path) -> None:
    """A tool has no code of its own, apart from those that need the benchmarks, which only a clone has."""
    text = path.read_text()
    if "run_command" in text:
        (name,) = (node.args[0].value for node in ast.walk(ast.parse(text))  # type: ignore[attr-defined]
                   if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run_command")  # fmt: skip
        assert name in COMMANDS and len(text.splitlines()) < 10
    else:
        assert not text or "benchmarks" in text, path


def test_python_m_fixres_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fixres", "merge", "--overwrit"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_INPUT
    assert done.stderr == "fixres merge: unknown option --overwrit, did you mean --overwrite? see --help\n"


def test_every_command_is_a_module() -> None:
    for command in COMMANDS:
        assert module(command).__doc__

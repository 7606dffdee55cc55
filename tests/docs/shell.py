"""Which program a line of a shell block calls, and whether that program accepts the line."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from configparser import ConfigParser
from typing import Any, NamedTuple

import pytest

from fixres.cli.main import COMMANDS, module
from fixres.config.validation import validated
from tests.docs.blocks import ROOT

# Words before a command of ours: settings of the environment, and launchers with their options.
_BEFORE = re.compile(r"(?:[A-Z]+=\S+ )*(?:(?:torchrun|srun) (?:(?!-m fixres|fixres|tools/).)*)?(?:python )?")


class Call(NamedTuple):
    """A call of one of our programs."""

    program: str
    """A sub-command of fixres, a module for `python -m`, or a file."""
    arguments: list[str]
    launched: bool
    """Whether torchrun or srun starts it."""


def call_of(line: str) -> Call | None:
    """The call in a line; None if it calls another program."""
    line = re.sub(r"\$\{?\w+\}?", "7", line)  # variables of a job script
    before = _BEFORE.match(line)[0]
    words = shlex.split(line[len(before) :])
    launched = "torchrun" in before or "srun" in before
    if words[:2] == ["-m", "fixres"]:
        words = words[1:]
    if words[0] == "fixres":
        return Call(words[1], words[2:], launched)
    if words[0] == "-m":
        return Call(words[1], words[2:], launched)
    if words[0].startswith("tools/"):
        return Call(_wrapped(words[0]) or words[0], words[1:], launched)
    return None


def _wrapped(file: str) -> str:
    """The sub-command of fixres that a file of tools calls, if any."""
    if not file.endswith(".py"):
        return ""
    calls = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.Call)]
    names = [call.args[0].value for call in calls if getattr(call.func, "id", "") == "run_command"]
    return names[0] if names else ""


def check(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses the call's arguments as its program does.

    Raises:
        InputError: the program refuses them.
    """
    if call.program in COMMANDS:
        module(call.program).parse(call.arguments)
    elif call.program == "benchmarks.loaders.gpu_decoder":  # runs without the parser of the others
        importlib.import_module(call.program).parse(call.arguments)
    elif call.program.endswith(".sh"):
        assert (ROOT / call.program).exists(), call.program
    else:
        name = call.program.removesuffix(".py").replace("/", ".")
        package = (ROOT / name.replace(".", "/")).is_dir()
        monkeypatch.setattr("fixres.config.parsing.validated", _stop)
        monkeypatch.setattr("benchmarks.throughput.engines.can_run", lambda _: True)  # FFCV may not be installed
        monkeypatch.setattr(sys, "argv", [call.program, *call.arguments])
        with pytest.raises(_ParsedError):
            importlib.import_module(f"{name}.run" if package else name).main()


class _ParsedError(Exception):
    """The options are right; what the program would do next is left out."""


def _stop(kind: type, values: dict[str, Any]) -> None:
    validated(kind, values)
    raise _ParsedError


def is_known(line: str) -> bool:
    """Whether a line that calls another program is one that exists: a target of make, an installation, pytest."""
    words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S+ )*", "", line))
    if words[0] == "pytest":
        return all((ROOT / word).exists() for word in words[1:] if not word.startswith("-"))
    if words[0] == "make":
        targets = re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text())
        return all(word in targets or re.match(r"[A-Z_]+=", word) for word in words[1:])
    if words[:2] == ["pip", "install"]:
        config = ConfigParser()
        config.read(ROOT / "setup.cfg")
        extra = re.fullmatch(r"\.(?:\[(\w+)\])?", words[2])
        return bool(extra) and (extra[1] is None or extra[1] in config["options.extras_require"])
    return False

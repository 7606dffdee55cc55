"""Every option that a message names exists in some command."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fixres.cli.main import COMMANDS, module

ROOT = Path(__file__).resolve().parents[3]
# Of docker, git, tar and NVRTC.
OTHERS = {"--shm-size", "--porcelain", "--untracked-files", "--ignore-zeros", "--sort", "--version", "--no"}
OTHERS |= {"--fmad", "--std", "--ptxas-options", "--gpu-architecture"}


def test_every_option_in_a_message_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            module(name).parse(["--help"])
    known = set(re.findall(r"--[a-z][a-z0-9.-]*", capsys.readouterr().out)) | OTHERS
    unknown = [
        f"{file.relative_to(ROOT)}:{node.lineno} {option}"
        for folder in ("fixres", "pipelines")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9_.-]*[a-z0-9]", node.value)
        if not any(f"{one}.".startswith(f"{option.replace('_', '-')}.") for one in known)
    ]
    assert len(known) > 100 and not unknown

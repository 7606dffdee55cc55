"""Starting and ending Python processes of this project."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_GUARD = 'read -r nothing; kill -s "$1" -- "$2" 2>/dev/null'


def start(
    command: Sequence[str], defaults: Mapping[str, str] = MappingProxyType({}), **options: Any
) -> subprocess.Popen[bytes]:
    """Starts a process that can import this project; it has a session of its own, which Ctrl-C does not reach.

    Args:
        command: the program and its arguments.
        defaults: environment variables, unless they are set already.
        options: of `subprocess.Popen`.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**defaults, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, env=environment, start_new_session=True, **options)


def guard(how: str, target: int) -> subprocess.Popen[bytes]:
    """Starts a process that sends a signal if this process is killed; `kill` ends it.

    It waits for the end of a pipe, which the kernel closes. The guarded process may itself be stopped at that time.

    Args:
        how: name of the signal, for example "KILL".
        target: a process, or minus the number of a process group.
    """
    return start(["sh", "-c", _GUARD, "guard", how, str(target)], stdin=subprocess.PIPE)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that `start` started, and its children. May be called twice."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()

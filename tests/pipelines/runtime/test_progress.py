"""Progress bars: nothing for short work, a bar on a terminal, lines at intervals in a log file."""

from __future__ import annotations

import io
import sys

import pytest

from fixres.pipelines.runtime import progress
from fixres.pipelines.runtime.progress import progress_bar


def test_short_work_and_hidden_work_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(3, "reading", iterable=iter("abc"))) == ["a", "b", "c"]
    with progress_bar(100, "reading", shown=False) as bar:
        bar.update(50)
    assert capsys.readouterr().err == ""


def test_a_log_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress_bar(4, "reading", unit="files", done=1) as bar:
        bar.update()
        bar.update(2)
    lines = capsys.readouterr().err.split("\n")
    assert any(line.startswith("reading: 50 %, 2 of 4 files, ") for line in lines)
    assert any(line.startswith("reading: 100 %, 4 of 4 files, ") for line in lines)
    assert not any("\r" in line for line in lines)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_OF_SILENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    with progress_bar(4, "reading", unit="files", leave=True) as bar:
        bar.update(4)
    shown = terminal.getvalue()
    assert "\rreading: " in shown and "100%" in shown and "4/4" in shown

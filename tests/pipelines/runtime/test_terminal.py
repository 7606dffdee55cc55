"""Control characters in names do not reach a terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.runtime.terminal import PrintableStream
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg

ROOT = Path(__file__).resolve().parents[3]
NAME = "a\x1b]0;title\x07\x1b[2J\x9bH\u202e"
ESCAPED = r"a\x1b]0;title\x07\x1b[2J\x9bH\u202e"


def controls(text: str) -> list[str]:
    return [character for character in text if not character.isprintable() and character != "\n"]


@pytest.mark.parametrize("command", ["convert", "inspect", "advise"])
def test_names_of_classes_are_escaped(command: str, tmp_path: Path) -> None:
    for name in (NAME, "b\nc", "d"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "in" / name / f"{i}{NAME}.jpg").write_bytes(jpeg(coded_image(60, 70, i)))
    (tmp_path / "in" / NAME / "bad.jpg").write_text("no image")
    words = [command, tmp_path / "in"]
    words += {"convert": [tmp_path / "x", "--on-bad", "skip", "--verify"], "advise": ["--train-res", "64"]}.get(
        command, []
    )
    done = subprocess.run(
        [sys.executable, "-m", "fixres", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert controls(done.stdout + done.stderr) == [], done.stdout + done.stderr
    assert ESCAPED in done.stdout + done.stderr or command == "advise"


def test_whatever_a_command_prints_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        print("")
        print(f"{NAME}\nnext", NAME)
        tqdm.write(NAME, file=sys.stderr)
        raise OSError(5, "Input/output error", NAME)

    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit):
        run(main)
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert out == f"\n{ESCAPED}\nnext {ESCAPED}\n"
    assert err.startswith(f"{ESCAPED}\n") and err.endswith(f": Input/output error: {ESCAPED}\n")
    with pytest.raises(SystemExit):
        run(lambda: (_ for _ in ()).throw(InputError(NAME)))
    assert ESCAPED in capsys.readouterr().err


def test_the_traceback_of_a_defect_is_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(RuntimeError) as caught:
        run(lambda: (_ for _ in ()).throw(RuntimeError(NAME)))
    sys.excepthook(caught.type, caught.value, caught.tb)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most") and shown.endswith(f"RuntimeError: {ESCAPED}\n") and not controls(shown)


def test_progress_bars_stay() -> None:
    plain, through = io.StringIO(), io.StringIO()
    for file in (plain, PrintableStream(through, has_bars=True)):
        with tqdm(total=2, file=file, mininterval=0, bar_format="{n}") as outer:
            for _ in tqdm(range(2), file=file, mininterval=0, bar_format="inner {n}"):
                outer.update()
    assert through.getvalue() == plain.getvalue() and "\r" in plain.getvalue() and "\x1b[A" in plain.getvalue()
    assert PrintableStream(io.StringIO()).write("ab") == 2

"""The commands in the shell blocks of README and docs are accepted by their programs; the cheap ones run."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fixres.cli.main import COMMANDS, call
from tests.coded import write_coded_folder
from tests.docs.blocks import PAGES, Block, blocks_of, commands_of
from tests.docs.shell import Call, call_of, check, is_known

CHEAP = ("convert", "merge", "evaluate", "predict", "export", "extract", "inspect", "show-crops", "advise", "estimate",
         "activations")  # fmt: skip
"""Sub-commands that run here. The others train, for minutes even with small networks; they are only parsed."""
BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language == "bash"]


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """`fixres train` handles signals as soon as its options are parsed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def name_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_the_commands_of_a_block_are_accepted(
    block: Block, example_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in commands_of(block):
        # "$i" is the number of a task in an array of 16 jobs.
        for command in [line.replace("$i", str(i)) for i in range(16 if "$i" in line else 1)]:
            found = call_of(command)
            if found is None:
                assert is_known(command) or block.reason, command
            elif found.program in CHEAP and not found.launched:
                call(found.program, found.arguments)
            else:
                with monkeypatch.context() as patch:
                    check(found, patch)


def test_calls_are_found() -> None:
    assert call_of("fixres train --data 'a b'") == Call("train", ["--data", "a b"], False)
    assert call_of("torchrun --nproc-per-node 8 -m fixres train --seed 1") == Call("train", ["--seed", "1"], True)
    assert call_of('srun fixres train --output "runs/$ID"') == Call("train", ["--output", "runs/7"], True)
    assert call_of("python tools/evaluate.py M") == Call("evaluate", ["M"], False)
    assert call_of("LIMIT=5 tools/run_gpu_checks.sh A") == Call("tools/run_gpu_checks.sh", ["A"], False)
    assert call_of("python -m benchmarks.savings --seeds 1") == Call("benchmarks.savings", ["--seeds", "1"], False)
    assert call_of("make demo") is None and is_known("make demo") and not is_known("make tea")
    assert is_known("pip install '.[onnx]'") and not is_known("pip install '.[tea]'") and not is_known("rm -rf .")


def test_most_sub_commands_are_shown() -> None:
    shown = {found.program for block in BLOCKS for line in commands_of(block) if (found := call_of(line))}
    assert set(COMMANDS) <= shown


INLINE = [
    (page.name, line)
    for page in PAGES
    for line in re.findall(r"`(python (?:-m|tools/)[^`]+ -[^`]+)`", page.read_text())
]


@pytest.mark.parametrize(("page", "line"), INLINE)
def test_commands_in_text_and_tables_are_accepted(
    page: str, line: str, example_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = call_of(" ".join(line.split()))
    assert found is not None
    check(found, monkeypatch)


def test_theory_shows_what_the_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coded_folder(tmp_path / "photos" / "train", [(375, 500)] * 10)
    monkeypatch.chdir(tmp_path)
    page = next(page for page in PAGES if page.name == "theory.md")
    command, printed = next(
        pair for pair in pairwise(blocks_of(page)) if pair[0].language == "bash" and pair[1].language == "text"
    )
    found = call_of(commands_of(command)[0])
    assert found is not None
    call(found.program, found.arguments)
    assert capsys.readouterr().out.rstrip() == printed.text.rstrip()

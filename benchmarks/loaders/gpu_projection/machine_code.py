"""Machine code of the kernels with the source line of each instruction, and its loops."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Container
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fixres.pipelines.roc.gpu.nvrtc import KERNELS, Resources, compile_kernels
from fixres.pipelines.spec import InputError

Line = tuple[str, int]
"""A file of the kernels and the number of a line in it."""


class Instruction(NamedTuple):
    """One instruction."""

    address: int
    text: str
    line: Line

    @property
    def name(self) -> str:
        """With its modifiers, such as "LDS.U16", without predicate."""
        return re.sub(r"^@!?U?P\w+\s+", "", self.text).split()[0]


class Loop(NamedTuple):
    """A loop without the loops inside it."""

    instructions: tuple[Instruction, ...]
    inner_lines: frozenset[Line]
    """Lines of the loops inside it. What the loop itself has of them is the rest of an unrolled loop."""

    def count(self, opcode: str = "", lines: Container[Line] | None = None, without: Container[Line] = ()) -> int:
        """Instructions with an opcode such as "LDS" or "LDS.U16" (or all), on these lines and not on others."""
        chosen = (one for one in self.instructions if f"{one.name}.".startswith(f"{opcode}." if opcode else ""))
        return sum((lines is None or one.line in lines) and one.line not in without for one in chosen)

    @property
    def own(self) -> int:
        """Instructions of lines that belong to no loop inside it."""
        return self.count(without=self.inner_lines)


class MachineCode:
    """The kernels for one architecture.

    Args:
        architecture: such as "sm_90".

    Raises:
        InputError: NVRTC or nvdisasm is missing.
    """

    def __init__(self, architecture: str) -> None:
        program = _disassembler()
        code, resources = compile_kernels(architecture, "--generate-line-info")
        self.resources: dict[str, Resources] = resources
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(code)
            file.flush()
            command = [program, "--print-line-info", "--print-code", file.name]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"nvdisasm cannot read machine code for {architecture}: {done.stderr.strip()[:200]}")
        self._text = done.stdout

    @cached_property
    def _kernels(self) -> dict[str, tuple[list[Instruction], dict[str, int]]]:
        """Instructions and addresses of labels, by kernel."""
        found: dict[str, tuple[list[Instruction], dict[str, int]]] = {}
        line, waiting = ("", 0), []
        for text in self._text.splitlines():
            if start := re.match(r"\.text\.(\w+):", text):
                instructions, labels = found.setdefault(start[1], ([], {}))
            elif place := re.search(r'## File ".*?([\w.]+)", line (\d+)', text):
                line = place[1], int(place[2])
            elif label := re.match(r"\.(L_\w+):", text):
                waiting.append(label[1])
            elif one := re.search(r"/\*([0-9a-f]{4,5})\*/\s+(.*?)\s*;", text):
                labels |= dict.fromkeys(waiting, int(one[1], 16))
                waiting = []
                instructions.append(Instruction(int(one[1], 16), one[2], line))
        return found

    def loops(self, kernel: str) -> list[Loop]:
        """The loops of a kernel in the order of their addresses. A jump backwards ends a loop."""
        instructions, labels = self._kernels[kernel]
        ends: dict[int, int] = {}
        for one in instructions:
            target = re.search(r"BRA.*\(\.(L_\w+)\)", one.text)
            start = labels.get(target[1]) if target else None
            if start is not None and start <= one.address:
                ends[start] = max(one.address, ends.get(start, 0))
        made = []
        for start, end in sorted(ends.items()):
            inside = [one for one in instructions if start <= one.address <= end]
            inner = [(low, high) for low, high in ends.items() if start < low and high <= end]
            nested = {one for one in inside if any(low <= one.address <= high for low, high in inner)}
            own = tuple(one for one in inside if one not in nested)
            made.append(Loop(own, frozenset(one.line for one in nested)))
        return made

    def loop(self, kernel: str, source: str, opcode: str = "", is_innermost: bool = True) -> Loop:
        """The first loop that has instructions of a source line, and an opcode if one is given; innermost or not."""
        lines = lines_with(source)
        for loop in self.loops(kernel):
            if is_innermost != bool(loop.inner_lines) and loop.count(lines=lines) and loop.count(opcode):
                return loop
        raise InputError(
            f"{kernel} has no loop with `{source}`; adapt benchmarks/loaders/gpu_projection to the kernels"
        )


def _disassembler() -> str:
    """nvdisasm, of a CUDA toolkit or in the package triton."""
    triton = importlib.util.find_spec("triton")
    places = (
        [Path(folder, "backends/nvidia/bin") for folder in (triton.submodule_search_locations or [])] if triton else []
    )
    found = shutil.which("nvdisasm") or next((path for one in places if (path := shutil.which(one / "nvdisasm"))), None)
    if found is None:
        raise InputError("nvdisasm is missing, so instructions cannot be counted; install triton or a CUDA toolkit")
    return found


def lines_with(source: str) -> set[Line]:
    """The lines of the kernels that contain a text.

    Raises:
        InputError: there is none.
    """
    found = {
        (file.name, number)
        for file in KERNELS.iterdir()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if source in line
    }
    if not found:
        raise InputError(f"no line of the kernels has `{source}`; adapt benchmarks/loaders/gpu_projection to them")
    return found


def lines_of_function(name: str) -> set[Line]:
    """The lines of a function of the kernels, from its first line to the brace at the start of a line."""
    for file, first in lines_with(f" {name}("):
        lines = (KERNELS / file).read_text().splitlines()
        if not lines[first - 1].startswith((" ", "//")):
            return {(file, number) for number in range(first, lines.index("}", first) + 2)}
    raise InputError(f"the kernels have no function {name}; adapt benchmarks/loaders/gpu_projection to them")

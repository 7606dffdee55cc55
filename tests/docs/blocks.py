"""The code blocks of README and docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = ("python", "bash", "text")  # "text" is for drawings, file contents and output


class Block(NamedTuple):
    """A fenced block."""

    page: str
    """File name of the page."""
    line: int
    """Number of the block's first line in the page, from 1."""
    language: str
    text: str
    reason: str
    """Why it cannot be run, from a comment `<!-- not run: REASON -->` in the line above; else empty."""


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found, lines, above = [], page.read_text().splitlines(), ""
    numbers = iter(range(len(lines)))
    for number in numbers:
        if fence := re.fullmatch(r"```(\w*)", lines[number]):
            end = lines.index("```", number + 1)
            reason = re.fullmatch(r"<!-- not run: (.+) -->", above)
            text = "\n".join(lines[number + 1 : end]) + "\n"
            found.append(Block(page.name, number + 2, fence[1], text, reason[1] if reason else ""))
            while next(numbers) < end:
                pass
        above = lines[number]
    return found


def commands_of(block: Block) -> list[str]:
    """The commands of a shell block: continued lines are joined, comments and empty lines left out."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line]

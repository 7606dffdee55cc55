"""Which code blocks the pages have, and which of them are not run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import LANGUAGES, PAGES, blocks_of, commands_of


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_fenced_and_names_its_language(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= set(LANGUAGES)
    outside = re.sub(r"(?ms)^```\w*\n.*?^```$", "", page.read_text())
    # Lines of a list may be indented by two spaces; a block of code in Markdown needs four after an empty line.
    assert not re.findall(r"(?m)^\n {4,}\S.*$", outside)


def test_only_these_blocks_are_not_run() -> None:
    left_out = [(block.page, block.reason) for page in PAGES for block in blocks_of(page) if block.reason]
    assert left_out == [("distributed.md", "a job script for SLURM")]


def test_blocks_and_their_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n```python\nx = 1\n```\n\n<!-- not run: a reason -->\n```bash\n"
        "# a comment\nfixres train \\\n    --data D  # data\n\nfixres train\n```\n"
    )
    first, second = blocks_of(page)
    assert (first.language, first.line, first.text, first.reason) == ("python", 4, "x = 1\n", "")
    assert (second.line, second.reason) == (9, "a reason")
    assert commands_of(second) == ["fixres train  --data D", "fixres train"]

"""Every Python block of README and docs runs, page by page, from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, blocks_of

EXAMPLES = {page.name: found for page in PAGES if (found := [b for b in blocks_of(page) if b.language == "python"])}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_python_blocks_of_a_page_run(name: str, example_folder: Path, given: dict[str, object]) -> None:
    namespace = dict(given) if name == "README.md" else {}
    for block in EXAMPLES[name]:
        # Lines are counted as in the page, so that a traceback points to it.
        exec(compile("\n" * (block.line - 1) + block.text, name, "exec"), namespace)


def test_the_pages_have_python_blocks() -> None:
    assert {"README.md", "index.md", "loop.md", "model.md", "photographs.md", "roc.md"} <= set(EXAMPLES)

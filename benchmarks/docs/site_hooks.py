"""Hooks of the documentation site (mkdocs.yml).

Pages of `docs` link to files elsewhere in the repository, as a code host shows them. The site gets copies of these
files. The pages of the command line and of the Python interface are made from the commands and docstrings themselves.
"""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)")  # a link from a page of docs to a file outside docs
_FIRST = ("CropDataset", "Loader", "Network")  # classes that the page of the interface lists among the functions
_TOP = ("ARCHITECTURE.md", "CHANGELOG.md")  # pages that lie in the root of the repository


def on_files(files: Any, config: Any) -> Any:
    """Adds the files outside `docs` that the navigation or a page shows."""
    from mkdocs.structure.files import File

    pages = [Path(file.abs_src_path).read_text() for file in files.documentation_pages()]
    for path in sorted({*_TOP, *(target for page in pages for target in _OUTSIDE.findall(page))}):
        if (_ROOT / path).is_file():  # otherwise the build reports the link
            files.append(File.generated(config, path, abs_src_path=str(_ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Adapts links, and fills the two pages that are made from the code."""
    if page.file.src_uri in _TOP:
        return re.sub(r"\]\(docs/", "](", markdown)
    markdown = re.sub(r"\]\(\.\./", "](", markdown)
    for marker, make in (("<!-- commands -->", commands), ("<!-- interface -->", interface)):
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def interface() -> str:
    """A section of mkdocstrings for each name that `fixres` exports."""
    import fixres

    found = []
    # First what is called, then the types of results and settings.
    for name in sorted(fixres.__all__, key=lambda name: (name[0].isupper() and name not in _FIRST, name.lower())):
        value = getattr(fixres, name)
        found.append(f"::: {value.__module__}.{value.__qualname__}\n    options:\n      heading: fixres.{name}\n")
    return "\n".join(found)


def commands() -> str:
    """A section for each sub-command of `fixres`, with its help."""
    from fixres.cli.main import COMMANDS

    return "\n".join(f"## fixres {name}\n\n```text\n{_help(name)}```\n" for name in COMMANDS)


def _help(name: str) -> str:
    """What `fixres NAME --help` prints in a terminal of 110 columns."""
    from fixres.cli.main import dispatch

    columns, words, printed = os.environ.get("COLUMNS"), sys.argv, io.StringIO()
    os.environ["COLUMNS"], sys.argv = "110", ["fixres"]
    try:
        with redirect_stdout(printed), suppress(SystemExit):
            dispatch([name, "--help"])
    finally:
        sys.argv = words
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return printed.getvalue()

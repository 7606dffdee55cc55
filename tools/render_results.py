"""Writes the tables and the figure of README and docs from the records in benchmarks/results.

python tools/render_results.py           # rewrites documents that are not up to date
python tools/render_results.py --check   # only lists them; exit code 1 if there are any
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import sys
from dataclasses import dataclass

from benchmarks.docs.render import rendered
from fixres.config.parsing import parse
from fixres.pipelines.runtime.exit_codes import run


@dataclass(frozen=True)
class RenderOptions:
    """Options of the rendering."""

    check: bool = False
    """Write nothing, list the documents."""


def main() -> None:
    """Parses the command line and renders."""
    options = parse(RenderOptions, sys.argv[1:], __doc__)
    stale = {path: text for path, text in rendered().items() if not path.exists() or path.read_text() != text}
    for document, text in stale.items():
        if not options.check:
            document.write_text(text)
        print(f"{document.name}: {'is not up to date' if options.check else 'written'}")
    if stale and options.check:
        sys.exit(1)


if __name__ == "__main__":
    run(main)

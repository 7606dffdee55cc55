"""A training run for tests that kill it or start several of it: `python -m tests.fixres.run_script RECIPE.json LOG`.

Notes the indices of every training batch in LOG.RANK, a line for each, before the batch is trained on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.spec import Batch, Loader


class Noting:
    """A training loader that notes epoch, position and indices of what it hands out."""

    def __init__(self, loader: Loader, log: Path) -> None:
        self._loader, self._log = loader, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        with open(self._log, "a", buffering=1) as file:
            for batch in self._loader:
                file.write(json.dumps([self._loader.epoch, batch.indices.tolist()]) + "\n")
                yield batch


def main() -> None:
    """As tools/train_fast.py, with loaders that note."""
    from fixres.recipe import parse_recipe
    from tools import train_fast

    recipe, log = sys.argv[1], sys.argv[2]
    sys.argv[1:] = ["--config", recipe, *sys.argv[3:]]
    parse_recipe(sys.argv[1:])
    from pipelines import opening

    class Noted(opening.PreparedData):
        def __call__(self, split: Any, **fields: Any) -> Any:
            loader = super().__call__(split, **fields)
            if split != "train" or not fields["drop_last"]:
                return loader
            return Noting(loader, Path(f"{log}.{os.environ.get('RANK', 0)}"))

    opening.PreparedData = Noted  # type: ignore[misc]
    train_fast.main()


if __name__ == "__main__":
    from pipelines.console import run

    _ = replace
    run(main)

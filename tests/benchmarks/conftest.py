"""Benchmarks in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixres.runs import Server, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Starts commands without their imports; their stderr is in `errors` of the test's folder."""
    with serving(tmp_path) as made:
        yield made

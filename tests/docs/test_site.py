"""The documentation site builds without a warning, and all its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fixres
from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_all_pages_and_files(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"ARCHITECTURE", "CHANGELOG"}
    assert pages <= {path.stem for path in site.glob("*.html")}
    assert (site / "figures" / "throughput.svg").exists()
    assert (site / "benchmarks" / "results" / "throughput.json").exists()


@pytest.mark.slow
def test_the_python_page_has_everything_that_fixres_exports(site: Path) -> None:
    text = (site / "api.html").read_text()
    assert [name for name in fixres.__all__ if f"fixres.{name}" not in re.sub(r"<[^>]+>", "", text)] == []


@pytest.mark.slow
def test_nothing_is_fetched_from_a_network(site: Path) -> None:
    for page in site.glob("*.html"):
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', page.read_text()), page.name

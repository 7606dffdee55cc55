"""README and docs name files, modules, options, settings and tests that exist, and quote numbers that were measured."""

from __future__ import annotations

import ast
import json
import re
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")])
_TREES = "pipelines|fixres|benchmarks|tools|tests"
_GROUPS = "optim|finetune|fault_tolerance|data|model|augment|distill|train_crop|eval_crop"
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def text_of(path: Path) -> str:
    """The document without the blocks that are rendered from records."""
    return re.sub(r"(?s)<!-- (\w+):begin -->.*?<!-- \1:end -->", "", path.read_text())


@cache
def names_in(module: Path) -> frozenset[str]:
    """Names that a module defines, and strings that it holds, such as lazily exported ones."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return frozenset(defined | stored | {node.value for node in nodes if isinstance(node, ast.Constant)
                                         and isinstance(node.value, str)})  # fmt: skip


@cache
def settings() -> frozenset[str]:
    """Fields of all classes and options of all command lines, with underscores."""
    found = set()
    for folder in ("pipelines", "fixres", "benchmarks", "tools"):
        for module in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text())):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found.add(node.target.id)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--"):
                    found.add(node.value.strip("-").replace("-", "_"))
    return frozenset(found)


def resolves(dotted: str) -> bool:
    """Whether `a.b.c` is a module, or a name in a module."""
    parts = dotted.split(".")
    for num in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:num])
        module = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py"
        if module.exists():
            return num == len(parts) or parts[num] in names_in(module)
    return False


@documents
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


@documents
def test_paths_exist(path: Path) -> None:
    found = re.findall(rf"(?<![\w/.])(?:{_TREES})/[\w/.-]*\w", text_of(path))
    missing = [one for one in found if not (ROOT / one).exists() and not (ROOT / f"{one}.py").exists()]
    assert not [one for one in missing if "NAME" not in one], missing


@documents
def test_modules_and_names_exist(path: Path) -> None:
    text = text_of(path)
    for module in re.findall(r"python -m ((?:benchmarks|fixres|pipelines)[\w.]*)", text):
        place = ROOT.joinpath(*module.split("."))
        assert module.endswith(".NAME") or (place / "__main__.py").exists() or place.with_suffix(".py").exists(), module
    for dotted in re.findall(r"(?<![\w/.-])(?:pipelines|fixres|benchmarks)(?:\.[A-Za-z_]\w*)+", text):
        assert dotted.endswith((".md", ".NAME")) or resolves(dotted), dotted


@documents
def test_options_and_settings_exist(path: Path) -> None:
    text = re.sub(r"(?m)^\s*(torchrun|srun|#SBATCH)\b.*$", "", text_of(path))
    ours = "\n".join(line for line in text.splitlines() if "tools/" in line or "benchmarks." in line)
    options = re.findall(r"(?<!\w)--([a-z][\w.-]*\w)", re.sub(r"torchrun .*?tools/", "tools/", ours))
    options += re.findall(rf"`(?:--)?((?:{_GROUPS})\.[\w.]+\w)", text)
    unknown = {one for one in options if one.split(".")[-1].replace("-", "_") not in settings()}
    assert not unknown - {"data.dali", "model", "json", "seed"}, unknown


def test_tests_that_reliability_names_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    rows = [line for line in text.splitlines() if re.search(r"\| ([SDPR]|`tests/[\w/.]+`,) `\w+", line)]
    names = [name for row in rows for name in re.findall(r"`(\w+)(?:\[\w+\])?`", row.split("|")[-2])]
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) >= 20
    for name in names:
        assert re.search(rf"def test_\w*{name}", written), name


def test_architecture_shows_the_layers_of_the_import_contract() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    shown = " ".join((ROOT / "ARCHITECTURE.md").read_text().split())
    for package in ("pipelines", "fixres", "benchmarks"):
        layers = config[f"importlinter:contract:{package}"]["layers"].split("\n")
        assert " → ".join(layer.replace(" |", ",") for layer in layers if layer) in shown, package


def test_the_first_screen_of_readme_shows_everything() -> None:
    readme = (ROOT / "README.md").read_text()
    first_screen = readme.partition("\n## ")[0]
    python = re.findall(r"(?s)```python\n(.*?)```", first_screen)
    assert len(first_screen.splitlines()) <= 50 and len(readme.splitlines()) <= 150
    assert "(docs/figures/throughput.svg)" in first_screen
    assert "pip install ." in first_screen and "make demo" in first_screen
    assert len(python) == 1 and python[0].startswith("import fixres\n") and python[0].count("\n") <= 12
    record = json.loads((ROOT / "benchmarks" / "results" / "throughput.json").read_text())
    ratios = {one["against"]: one for one in record["ratios"] if (one["engine"], one["res"]) == ("roc", 128)}
    kinds = {"FFCV": ["ffcv"], "DALI": ["dali", "dali-dynamic"], "TurboLoader": ["turboloader"]}
    kinds["torch's DataLoader"] = ["torchvision", "simplejpeg", "torchcodec"]
    for name, engines in kinds.items():
        found = [ratios[engine]["ratio"] for engine in engines if engine in ratios]
        quoted = {f"{ratio:.1f} times as fast as {name}" for ratio in found}
        assert not found or any(words in first_screen for words in quoted), (name, found)
    assert "ffcv" in ratios and "torchvision" in ratios
    space = record["file_bytes"]["roc"] / record["file_bytes"]["ffcv"]
    for path in (ROOT / "README.md", ROOT / "docs" / "roc.md"):
        assert f"RoC files take {space:.2f} times" in " ".join(path.read_text().split())

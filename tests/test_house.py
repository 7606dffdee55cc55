"""The shape of the project: small folders, short parameter lists, no module that hides behind a function's name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for name in ("pipelines", "fixres", "benchmarks", "tools") for path in (ROOT / name).rglob("*.py"))
MAX_MODULES, MAX_PARAMETERS, MAX_LINES = 15, 7, 350


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def test_the_product_is_found() -> None:
    assert len(FILES) > 200


def test_folders_are_small() -> None:
    counts = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {str(folder): num for folder, num in counts.items() if num > MAX_MODULES} == {}


def test_files_are_short() -> None:
    assert {str(path): num for path in FILES if (num := path.read_text().count("\n")) > MAX_LINES} == {}


def test_long_parameter_lists_give_a_reason() -> None:
    without = []
    for path in FILES:
        for function in functions(path):
            arguments = function.args
            names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            num = len([name for name in names if name not in ("self", "cls")])
            if num > MAX_PARAMETERS and "many parameters" not in (ast.get_docstring(function) or ""):
                without.append(f"{path}: {function.name} has {num}")
    assert without == []


def test_no_package_exports_a_function_with_the_name_of_its_module() -> None:
    """`package.name` would be the function or the module, whichever was imported last."""
    for path in FILES:
        if path.name == "__init__.py":
            modules = {other.stem for other in path.parent.glob("*.py")} | {
                other.name for other in path.parent.iterdir()
            }
            exported = {
                node.value
                for lists in ast.walk(ast.parse(path.read_text()))
                if isinstance(lists, ast.List)
                for node in lists.elts
                if isinstance(node, ast.Constant)
            }
            assert not exported & modules, path

"""None of our modules executes code from data files; packages are installed by their hashes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("pipelines", "fixres", "benchmarks", "tools")

# Numba's cache holds machine code, which is run in any case, in a folder that only the user can write to.
_KERNEL_CACHE = re.compile(r"pipelines/runtime/numba_cache\.py, line \d+: pickle\.loads?$")

# Functions that execute or unpickle their input.
FORBIDDEN = {
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all")),
    *(f"{module}.{name}" for module in ("pickle", "marshal", "dill") for name in ("load", "loads", "Unpickler")),
    *("eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen", "joblib.load", "pandas.read_pickle"),
}


def _parsed(text: str) -> ast.AST:
    """Python 3.11 sometimes fails here if another thread parses at the same time (its issue 106905)."""
    try:
        return ast.parse(text)
    except SystemError:
        return ast.parse(text)


def offences(code: str) -> Iterator[str]:
    """Line number and name of each dangerous call in a module."""
    tree = _parsed(code)
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and (name := _dotted(node, names)) in FORBIDDEN:
            yield f"line {node.lineno}: {name}"
        if isinstance(node, ast.Call):
            name, keywords = _dotted(node.func, names), {one.arg: one.value for one in node.keywords}
            if name in ("torch.load", "torch.jit.load") and not _is(keywords.get("weights_only"), True):
                yield f"line {node.lineno}: {name}"
            pickles = keywords.get("allow_pickle", node.args[2] if len(node.args) > 2 else ast.Constant(False))
            if name in ("numpy.load", "numpy.lib.format.read_array") and not _is(pickles, False):
                yield f"line {node.lineno}: {name} with allow_pickle"
            if not _is(keywords.get("shell", ast.Constant(False)), False):
                yield f"line {node.lineno}: {name} with shell"


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The imported names of a module and their meaning: `import torch as t` gives ("t", "torch")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield (one.asname, one.name) if one.asname else (one.name.split(".")[0], one.name.split(".")[0])
        if isinstance(node, ast.ImportFrom):
            yield from ((one.asname or one.name, f"{node.module}.{one.name}") for one in node.names)


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`np.load` as "numpy.load"; empty if the node is not a name, such as the method of a result."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value, names)):
        return f"{base}.{node.attr}"
    return ""


def _is(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("folder", ["pipelines", "fixres"])
def test_files_are_written_without_following_links(folder: str) -> None:
    """By `open` with `opener=open_own`; other functions write to the names that `atomic_file` gives."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(_parsed(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "open" and len(node.args) > 1:
                reads = ast.unparse(node.args[1]) in ("'rb'", "'r'")
                assert reads or "opener" in [one.arg for one in node.keywords], f"{file}, line {node.lineno}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_executes_code_from_files(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert len(files) > 10
    found = [f"{file.relative_to(ROOT)}, {offence}" for file in files for offence in offences(file.read_text())]
    assert [one for one in found if not _KERNEL_CACHE.match(one)] == []


@pytest.mark.parametrize(
    "code",
    [
        *("import torch\ntorch.load(p)", "import torch\ntorch.load(p, weights_only=False)"),
        *("import torch as t\nt.load(p, weights_only=flag)", "from torch import load as fetch\nfetch(p)"),
        *("import torch\ntorch.load(p, **options)", "def f():\n    import torch\n    return torch.load(p)"),
        *(
            "import yaml\nyaml.load(x, yaml.SafeLoader)",
            "import yaml\nyaml.unsafe_load(x)",
            "from yaml import full_load\nfull_load(x)",
        ),
        *(
            "import pickle\npickle.load(f)",
            "from pickle import loads\nloads(b)",
            "import pickle as p\nmap(p.loads, bs)",
        ),
        *("eval(x)", "exec(x)", "import builtins\nbuiltins.eval(x)", "list(map(eval, xs))"),
        *("import os\nos.system(x)", "from os import system\nsystem(x)"),
        *("import subprocess\nsubprocess.run(x, shell=True)", "import subprocess\nsubprocess.run(x, shell=flag)"),
        *("import numpy as np\nnp.load(p, allow_pickle=True)", "import numpy as np\nnp.load(p, 'r', True)"),
        "import numpy\nnumpy.load(p, allow_pickle=flag)",
    ],
)
def test_the_checker_catches(code: str) -> None:
    assert len(list(offences(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(p, map_location='cpu', weights_only=True)",
        "import yaml\nyaml.safe_load(x)\nyaml.safe_dump(y)",
        "net.eval()\nself.load(x)\nnet.load_state_dict(x)",
        "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    pickle.dumps(x)",
        "import numpy as np\nnp.load(p, mmap_mode='r', allow_pickle=False)\nnp.load(p)",
        "import subprocess\nsubprocess.run([x], shell=False)",
    ],
)
def test_the_checker_accepts(code: str) -> None:
    assert list(offences(code)) == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-ffcv.txt", "requirements-uv.txt"])
def test_requirements_have_versions_and_hashes(name: str) -> None:
    """A package that was exchanged on its way is refused; the installer asks for hashes."""
    packages = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", (ROOT / name).read_text()))
    packages = [package for package in packages if package.strip()]
    assert packages
    for package in packages:
        assert re.match(r"[\w.\[\]-]+==\S+", package) and "--hash=sha256:" in package, package[:80]
    assert f"--require-hashes -r {name}" in (ROOT / "tools" / "install.sh").read_text()

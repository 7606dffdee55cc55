"""The packages that a machine without network lacks, fetched for its Python, without what JPEG training never reads."""

from __future__ import annotations

import configparser
import fnmatch
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pipelines.spec import InputError
from tools.gpu_bundle.fatbin import Saved, shrink

_TESTS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist")  # setup.cfg's extra `dev` without the style checks
_PLATFORM = "x86_64-manylinux_2_28"
# What DALI asks for and JPEG does not: JPEG 2000, TIFF, and compressed volumes.
_OTHER_CODECS = ("nvidia-nvjpeg2k", "nvidia-nvtiff", "nvidia-libnvcomp")
_DROPPED = (
    "bin/*",
    "*/include/*",
    "*/tests/*",
    "*.pyi",
    "nvidia/dali/test/*",
    "nvidia/dali/Acknowledgements.txt",
    "nvidia/dali/plugin/jax/*",
    "nvidia/dali/plugin/numba/*",
    "nvidia/nvimgcodec/tools/*",
    "nvidia/nvimgcodec/extensions/libnvjpeg2k_ext*",
    "nvidia/nvimgcodec/extensions/*tiff_ext*",
)


def missing(have: Path, python: str, cuda: int) -> list[str]:
    """Pinned requirements of the project, its tests and DALI that `have` does not list.

    Args:
        have: what `python3 -m pip freeze` prints over there, or names alone. What is pinned in it stays as it is.
        python: version over there, such as "3.12".
        cuda: of DALI's build, 12 or 13.

    Raises:
        InputError: what is there and what is missing do not fit together.
    """
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    wanted = [*setup["options"]["install_requires"].split(), *_TESTS, f"nvidia-dali-cuda{cuda}0"]
    # A build's own version ("2.11.0+cu130") and a place ("@ file://...") are known to no index.
    there = [re.split(r" @ |\+|;", line)[0].strip() for line in have.read_text().splitlines()]
    there = [line for line in there if re.match(r"\w", line)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(there))
        constraints.flush()
        command = ["compile", "--no-header", "--no-annotate", "--no-emit-index-url", "--constraints", constraints.name]
        pins = _uv([*command, "-"], python, "\n".join(wanted)).split()
    names = {_name(line) for line in there}
    return [pin for pin in pins if _name(pin) not in names and not _name(pin).startswith(_OTHER_CODECS)]


def fetch(pins: list[str], python: str, site: Path) -> None:
    """Unpacks the wheels of `pins` into `site` and drops what is never read there."""
    # Copies: by default files are links into uv's cache, which shrinking them would change.
    _uv(["install", "--no-deps", "--link-mode", "copy", "--target", str(site), *pins], python)
    other_python = re.compile(rf"\.cpython-(?!{python.replace('.', '')}-)\d+t?-")
    for path in sorted(site.rglob("*")):
        name = str(path.relative_to(site))
        if path.is_file() and (other_python.search(name) or any(fnmatch.fnmatch(name, one) for one in _DROPPED)):
            path.unlink()


def shrink_libraries(site: Path, arch: int | None) -> Saved:
    """Zeroes what libraries below `site` do not need (`fatbin.shrink`) and links those that are there twice."""
    total, seen = Saved(0, 0, 0), {}
    for path in sorted(path for path in site.rglob("*.so*") if path.is_file() and not path.is_symlink()):
        content = bytearray(path.read_bytes())
        digest = hashlib.sha256(content).digest()
        if (twin := seen.setdefault(digest, path)) != path:
            path.unlink()
            path.symlink_to(os.path.relpath(twin, path.parent))
            continue
        saved = shrink(content, arch)
        path.write_bytes(content)
        total = Saved(*(a + b for a, b in zip(total, saved, strict=True)))
    return total


def _name(requirement: str) -> str:
    """A package's normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>!~\[ ]", requirement)[0]).lower()


def _uv(arguments: list[str], python: str, stdin: str = "") -> str:
    command = [str(Path(sys.executable).with_name("uv")), "pip", *arguments, "--quiet", "--only-binary", ":all:"]
    command += ["--python-version", python, "--python-platform", _PLATFORM]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"no set of packages found for Python {python}: {' '.join(done.stderr.split())}")
    return done.stdout

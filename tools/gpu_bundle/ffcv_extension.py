"""FFCV for a Python that is not here: its extension is built once by the stable ABI, with what it links to beside it.

FFCV comes as source only, and a machine without network has seldom the headers of OpenCV. Needs g++ and Debian's
libopencv-dev (its static libraries), libturbojpeg0-dev and libtbb-dev.
"""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from pipelines.spec import InputError

_PURE = ("assertpy==1.1", "fastargs==1.2.0", "pytorch-pfn-extras==0.9.0", "terminaltables==3.1.10")
_LINKED = ("-l:libopencv_imgproc.a", "-l:libopencv_core.a", "-lturbojpeg", "-ltbb", "-lz", "-lpthread", "-ldl")
_SHARED = ("libturbojpeg.so.0", "libtbb.so.12")
_ABI = "0x03080000"  # CPython 3.8 or newer
# OpenCV's core asks for OpenGL's loader, which FFCV never calls.
_STUB = 'extern "C" void *glXGetProcAddressARB(const unsigned char *) { return nullptr; }\n'


def build(site: Path, work: Path) -> None:
    """Adds FFCV and the small packages that it needs to `site`; `work` is an empty folder for the build.

    Raises:
        InputError: it does not build, with the compiler's first complaint.
    """
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wanted = setup["options.extras_require"]["ffcv"]
    _call([*pip, "download", "--no-deps", "--no-binary", ":all:", "--dest", str(work), wanted])
    _call(["tar", "-xzf", str(next(work.glob("ffcv-*.tar.gz"))), "-C", str(work)])
    source = next(path for path in work.glob("ffcv-*") if path.is_dir())
    shutil.copytree(source / "ffcv", site / "ffcv", ignore=shutil.ignore_patterns("benchmarks"))
    _compile(source / "libffcv" / "libffcv.cpp", site / "ffcv" / "_libffcv.abi3.so", work)
    libraries = site / "ffcv.libs"
    libraries.mkdir()
    for name in _SHARED:
        shutil.copy(_call(["g++", f"-print-file-name={name}"]).strip(), libraries / name)
    _call([*pip, "install", "--no-deps", "--no-compile", "--target", str(site), *_PURE])


def _compile(source: Path, target: Path, work: Path) -> None:
    stub = work / "stub.cpp"
    stub.write_text(_STUB)
    command = ["g++", "-O3", "-fPIC", "-shared", "-std=c++14", "-s", f"-DPy_LIMITED_API={_ABI}"]
    command += [f"-I{sysconfig.get_paths()['include']}", "-I/usr/include/opencv4", str(source), str(stub)]
    command += ["-o", str(target), "-Wl,--gc-sections,--exclude-libs,ALL,-z,noexecstack,--disable-new-dtags"]
    _call([*command, "-Wl,-rpath,$ORIGIN/../ffcv.libs", *_LINKED])


def _call(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise InputError(f"{command[0]} is not installed; without FFCV it goes with --no-ffcv") from error
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "error" in line.lower()] or error.stderr.splitlines()
        raise InputError(
            f"FFCV does not build: {said[0] if said else command[0]}; it needs g++, libopencv-dev, libturbojpeg0-dev"
            " and libtbb-dev, or goes without: --no-ffcv"
        ) from error

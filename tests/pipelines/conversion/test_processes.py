"""Conversions as processes: the command line, signals, a full disk, and what is imported."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.sources import open_source
from tests.coded import coded_image, jpeg

ROOT = Path(__file__).parents[3]
FORMATS = ("ffcv", "webdataset")


def command(*arguments: object) -> subprocess.CompletedProcess:
    words = [sys.executable, "tools/convert_imagenet.py", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_command_line(coded_folder: Path, tmp_path: Path) -> None:
    done = command(coded_folder, tmp_path / "x", "--format", "ffcv", "--max-side", 100, "--num-workers", 2)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'x'}: 24 images" in done.stdout and "images/s" in done.stdout
    assert BetonReader(tmp_path / "x").sizes.max() == 100


def test_command_line_without_source(tmp_path: Path) -> None:
    done = command(tmp_path / "nowhere", tmp_path / "x", "--format", "ffcv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and f"{tmp_path / 'nowhere'} does not exist" in done.stderr


class Child:
    """`convert` in its own process, run like a command."""

    def __init__(self, errors: Path, prepare: Callable[[], None], **arguments: object) -> None:
        self._errors = errors
        words = json.dumps({name: str(value) for name, value in arguments.items()})
        with errors.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CONVERT, words], stderr=file, preexec_fn=prepare, start_new_session=True
            )
        self.pid = self._process.pid

    def wait(self) -> tuple[int, str]:
        """The exit code (negative: signal) and the last line on stderr, which may be empty."""
        code = self._process.wait(60)
        text = self._errors.read_text()
        assert "Traceback" not in text
        lines = text.strip().splitlines() or [""]
        return code, lines[-1]


_CONVERT = """
import json, sys
from pathlib import Path
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.runtime.exit_codes import run
words = json.loads(sys.argv[1])
paths = Path(words["source"]), Path(words["dest"])
run(lambda: convert(*paths, ConversionConfig(words["format"], num_workers=2)) and None)
"""


def test_file_too_large_for_the_disk(coded_folder: Path, tmp_path: Path) -> None:
    """The kernel refuses to write, in the middle of the image data."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((8 << 20) + 20_000, -1))

    target = tmp_path / "out" / "x"
    code, line = Child(tmp_path / "errors", limit, source=coded_folder, dest=target, format="ffcv").wait()
    assert code == 3 and line.endswith(f": File too large: {target}")
    assert not target.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("format", FORMATS)
def test_signals_leave_no_target_and_no_workers(format: str, how: signal.Signals, tmp_path: Path) -> None:
    source = tmp_path / "in" / "a"
    source.mkdir(parents=True)
    (source / "0.jpg").write_bytes(jpeg(coded_image(1500, 2000)))
    for i in range(1, 400):
        (source / f"{i}.jpg").symlink_to(source / "0.jpg")
    target, partial = tmp_path / "out" / "x", tmp_path / "out" / ".x.partial"
    child = Child(tmp_path / "errors", lambda: None, source=tmp_path / "in", dest=target, format=format)
    wait_until(lambda: partial.exists() and len(psutil.Process(child.pid).children()) == 2)
    time.sleep(0.3)  # Python ignores a KeyboardInterrupt in the hooks that it runs after a fork
    workers = psutil.Process(child.pid).children()
    # Ctrl-C goes to the whole process group, the other signals to one process.
    os.killpg(child.pid, how) if how == signal.SIGINT else os.kill(child.pid, how)
    code, line = child.wait()
    assert code == (-how if how == signal.SIGKILL else 130)
    if how != signal.SIGKILL:
        assert "interrupted" in line
    wait_until(lambda: not any(worker.is_running() for worker in workers))
    assert not target.exists()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


def test_real_photographs_are_copied(imagenet_samples: Path, tmp_path: Path) -> None:
    """Photographs of at most 500 pixels are stored unchanged, with their true sizes in the table."""
    folder = tmp_path / "in" / "photos"
    folder.mkdir(parents=True)
    for path in sorted(imagenet_samples.glob("*.JPEG"))[:60]:
        (folder / path.name).symlink_to(path)
    done = convert(tmp_path / "in", tmp_path / "x.beton", ConversionConfig("ffcv", num_workers=2, progress=False))
    source, stored = open_source(tmp_path / "in"), BetonReader(tmp_path / "x.beton")
    same = sum(stored.read(i) == source.read(i) for i in range(60))
    assert same == done.num_passed >= 50
    for i in range(60):
        assert np.array_equal(stored.pixels(i), decode_rgb(stored.read(i), "x"))


def test_converting_imports_no_torch(coded_folder: Path, tmp_path: Path) -> None:
    """With torchvision it takes 10 s."""
    code = (
        "import sys; from pathlib import Path; from fixres.pipelines.conversion.converter import convert; "
        "from fixres.pipelines.conversion.task import ConversionConfig; "
        "config = ConversionConfig('roc', num_workers=0, progress=False, on_bad='skip'); "
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), config); "
        "assert not {'torch', 'torchvision', 'timm'} & sys.modules.keys(), 'slow imports'"
    )
    subprocess.run([sys.executable, "-c", code, str(coded_folder), str(tmp_path / "x.beton")], check=True, timeout=300)

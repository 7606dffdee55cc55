"""The memory of a conversion does not grow with the data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from tests.coded import coded_image, jpeg

ROOT = Path(__file__).parents[3]
# 100,000 take a minute or two; the trend is the same at less than that. With 10,000 a fast machine still loads kernels
# in the first half.
_NUM = int(os.environ.get("ROC_FIXRES_MEMORY_SAMPLES", "15000"))
_MB = 1 << 20


class Endless:
    """A few small images, repeated."""

    classes = ("only",)

    def __init__(self, num_samples: int) -> None:
        self._images = [jpeg(coded_image(40 + 8 * k, 60)) for k in range(5)]
        self.labels = np.zeros(num_samples, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        return self._images[index % len(self._images)]

    def name(self, index: int) -> str:
        return f"image {index}"


class Watch(threading.Thread):
    """Records the memory of this process and the unique memory of its children, twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.parent: list[int] = []
        self.workers: list[int] = []
        self._stop_asked = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._stop_asked.wait(0.05):
            try:
                info = me.memory_info()  # what it shares with its children counts here
                self.parent.append(info.rss - info.shared)
                self.workers.append(max((child.memory_full_info().uss for child in me.children()), default=0))
            except psutil.NoSuchProcess:
                continue

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def _measured(format: str, target: str) -> dict[str, list[int]]:
    watch = Watch()
    watch.start()
    convert(Endless(_NUM), Path(target), ConversionConfig(format, num_workers=2, progress=False))
    watch.stop()
    return {"parent": watch.parent, "worker": watch.workers}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["ffcv", "roc", "webdataset"])
def test_memory_stays_flat(format: str, tmp_path: Path) -> None:
    """In its own process: workers are forks, and would count pages of the test process that they touch."""
    command = [sys.executable, "-m", "tests.pipelines.conversion.test_memory", format, str(tmp_path / "x")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    for name, used in json.loads(done.stdout).items():
        used = [value for value in used if value]
        early, late = np.median(used[2 * len(used) // 5 : 3 * len(used) // 5]), np.median(used[-len(used) // 5 :])
        print(f"{format} {name}: {early / _MB:.0f} MB early, {late / _MB:.0f} late, {max(used) / _MB:.0f} at most")
        # The parent keeps tables of about 100 bytes a sample for the end of the file.
        assert late - early < 10 * _MB + 100 * _NUM
        assert name == "parent" or max(used) < 300 * _MB


if __name__ == "__main__":
    print(json.dumps(_measured(*sys.argv[1:])))

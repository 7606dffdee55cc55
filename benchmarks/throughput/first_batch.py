"""How long a user waits for the first batch: fresh processes, from the start of Python on, kernels compiled before.

python -m benchmarks.throughput.first_batch --data FOLDER --json benchmarks/results/first_batch.json

In each round these programs run one after another: `import torch` alone, `fixres.Loader`, stock FFCV on these images,
`fixres --help`. At last the kernels of a `fixres.Loader` are compiled from nothing. Ctrl-C keeps the finished rounds.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Window, interleave
from benchmarks.harness.options import PhotoOptions, RoundOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.harness.subprocesses import kill, start
from benchmarks.throughput.tables import first_batch_table
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError

_PROGRAMS = {
    "import torch": "import torch",
    "fixres.Loader": (
        "import fixres; next(iter(fixres.Loader(sys.argv[1], resolution={res}, batch_size={batch_size}, "
        "num_workers={num_workers}, device='cpu')))"
    ),
    "ffcv": (
        "from pathlib import Path; from fixres.pipelines.loaders import open_loader; "
        "from fixres.pipelines.spec import LoaderConfig, TrainCrop; "
        "next(iter(open_loader('ffcv', LoaderConfig(Path(sys.argv[2]), TrainCrop(), {res}, {batch_size}, "
        "num_workers={num_workers}, device='cpu', shuffle=True, drop_last=True))))"
    ),
    "fixres --help": "from fixres.cli.main import dispatch; dispatch(['--help']); assert 'torch' not in sys.modules",
}
_DONE = "ready for the clock"
_NOTE = "First batch of {batch_size} at {train_res} px, {num_workers} threads; {rounds} interleaved rounds."


@dataclass(frozen=True, kw_only=True)
class FirstBatchOptions(PhotoOptions, RoundOptions):
    """Options of the benchmark."""

    programs: list[str] = field(default_factory=lambda: list(_PROGRAMS))
    """What is started, import torch among it."""
    train_res: int = 128
    """Output side in pixels."""
    batch_size: int = 64
    """Images of a batch."""
    num_workers: int = 2
    """Threads of a loader."""
    rounds: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.programs if name not in _PROGRAMS]:
            raise InputError(f"programs: {unknown[0]!r} is unknown; there are {', '.join(_PROGRAMS)}")


def measure(options: FirstBatchOptions) -> dict[str, Any]:
    """Measures all programs and rounds, then the compilation; returns the record."""
    files, environment = options.files(), conditions(page_cache="warm")
    paths = [str(files.path("roc")), str(files.path("ffcv"))]
    sizes = {"res": options.train_res, "batch_size": options.batch_size, "num_workers": options.num_workers}
    runs = {name: partial(_window, _PROGRAMS[name].format(**sizes), paths) for name in options.programs}
    for once in runs.values():
        once()  # compiles kernels, reads files
    results, compiled = [], None
    with Interruption() as interruption:
        rounds = interleave(runs, options.rounds, "first batch", mirrored=False)
        for name in options.programs if rounds.num_rounds else ():
            windows = rounds.windows[name]
            cpu = [one.cpu_seconds for one in windows]
            relative = rounds.ratio("fixres.Loader", name).as_json("ratio", "ratio_interval")
            results.append(
                {"program": name, "seconds": [one.seconds for one in windows], "cpu_seconds": cpu, **relative}
            )
        if rounds.interrupted:
            raise KeyboardInterrupt
        with tempfile.TemporaryDirectory() as folder:
            window = _window(_PROGRAMS["fixres.Loader"].format(**sizes), paths, NUMBA_CACHE_DIR=folder)
            compiled = {"seconds": window.seconds, "cpu_seconds": window.cpu_seconds}
    note, fields = _NOTE.format(**vars(options)), {"results": results, "compilation": compiled}
    return record("first_batch", options.settings(), environment, note, interruption.happened, **fields)


def _window(code: str, paths: list[str], **variables: str) -> Window:
    """Runs a program until its work is done: one "image", its wall-clock and CPU seconds."""
    text = f"import sys; {code}; sys.stdout.flush(); print({_DONE!r}, flush=True)"
    begin = time.perf_counter()
    process = start([sys.executable, "-c", text, *paths], variables, stdin=DEVNULL, stdout=PIPE)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, b"")
    finished = any(line.strip() == _DONE.encode() for line in lines)
    seconds = time.perf_counter() - begin
    cpu_seconds = _cpu_seconds(process.pid) if finished else 0.0
    kill(process)
    process.stdout.close()
    if not finished:
        raise InputError("a program failed; its error is above")
    return Window(1, seconds, cpu_seconds)


def _cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


main = command(FirstBatchOptions, __doc__, measure, first_batch_table)


if __name__ == "__main__":
    run(main)

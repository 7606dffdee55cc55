"""What it brings that the process keeps freed memory: networks on a CPU with glibc's default settings and with ours.

python -m benchmarks.training.allocator --json benchmarks/results/allocator.json

Evaluation, extraction of features, FixRes epochs without a cache, and training steps of the demo. Each measurement runs
in a process of its own, round by round. "default" has the allocator's default settings and evaluates whole
batches; "kept" is what `fixres` does (docs/reliability.md). Ctrl-C keeps the finished rounds.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import Pipe
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Window, interleave
from benchmarks.harness.options import WORK_DIR, RoundOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.harness.stats import paired_ratio
from benchmarks.harness.subprocesses import kill, start
from benchmarks.training.allocator_worker import Work
from benchmarks.training.tables import allocator_table
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.runtime.allocator import VARIABLE
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources import open_source
from fixres.pipelines.sources.scenes.scene import SceneConfig
from fixres.pipelines.sources.scenes.write import write_scenes
from fixres.pipelines.spec import InputError

_NOTE = "Synthetic scenes, fp32; {rounds} interleaved rounds, each measurement in a process of its own."
_SETTINGS = ("default", "kept")


@dataclass(frozen=True, kw_only=True)
class AllocatorOptions(RoundOptions):
    """Options of the benchmark."""

    models: list[str] = field(default_factory=lambda: ["tf_efficientnet_lite0", "mobilenetv3_large_100"])
    """Networks of timm, with random weights."""
    test_res: list[int] = field(default_factory=lambda: [224, 288, 384])
    """Resolutions of evaluation in pixels; the first is that of features and FixRes epochs."""
    train_res: list[int] = field(default_factory=lambda: [112, 176])
    """Resolutions of the demo's training in pixels."""
    batch_size: int = 64
    """Images of a batch; training takes half as many."""
    num_images: int = 128
    """Images of a pass."""
    work_dir: Path = WORK_DIR
    """Folder for the images, which are kept."""
    rounds: int = 3


def works(options: AllocatorOptions) -> list[Work]:
    """All that is measured."""
    size = {"batch_size": options.batch_size, "num_images": options.num_images}
    found = [Work("evaluation", model, res, **size) for model in options.models for res in options.test_res]
    for kind in ("features", "FixRes epoch"):
        found += [Work(kind, model, options.test_res[0], **size) for model in options.models]
    size = {"batch_size": options.batch_size // 2, "num_images": options.num_images}
    return found + [Work("training", None, res, **size) for res in options.train_res]


class _Measurer:
    """The process that measures with one setting."""

    def __init__(self, setting: str, data: Path) -> None:
        self._data, self._whole_batches = data, setting == "default"
        self._connection, theirs = Pipe()
        module = [sys.executable, "-m", "benchmarks.training.allocator_worker", str(theirs.fileno())]
        # An empty text: the setting that a user has who did not choose.
        chosen = {VARIABLE: "default" if setting == "default" else ""}
        self._process = start(module, chosen, pass_fds=[theirs.fileno()])
        theirs.close()

    def measured(self, work: Work) -> dict[str, Any]:
        """What `allocator_worker.measured` returns."""
        self._connection.send((replace(work, whole_batches=self._whole_batches), self._data))
        found = self._connection.recv()
        if found is None:
            raise InputError(f"the measurement of {work} failed; its error is above")
        return found

    def kill(self) -> None:
        kill(self._process)


def measure(options: AllocatorOptions) -> dict[str, Any]:
    """Measures all works, settings and rounds; returns the record."""
    environment, results, data = conditions(), [], _images(options)
    measurers = {setting: _Measurer(setting, data) for setting in _SETTINGS}
    try:
        with Interruption() as interruption:
            for work in works(options):
                found, interrupted = _measured(measurers, work, options.rounds)
                results += [found] if found else []
                if interrupted:
                    raise KeyboardInterrupt
    finally:
        for measurer in measurers.values():
            measurer.kill()
    note = _NOTE.format(rounds=options.rounds)
    return record("allocator", options.settings(), environment, note, interruption.happened, results=results)


def _measured(measurers: dict[str, _Measurer], work: Work, num_rounds: int) -> tuple[dict[str, Any] | None, bool]:
    """A work's entry in the record, None without a finished round; whether Ctrl-C came."""
    passes: dict[str, list[dict[str, Any]]] = {setting: [] for setting in measurers}

    def window(setting: str) -> Callable[[], Window]:
        def measure_once() -> Window:
            passes[setting].append(found := measurers[setting].measured(work))
            cpu_seconds = found["user_seconds"] + found["system_seconds"]
            return Window(work.num_images, work.num_images / found["images_per_second"], cpu_seconds)

        return measure_once

    runs = {setting: window(setting) for setting in measurers}
    title = f"{work.kind}, {work.model or 'demo'}, {work.res} px"
    rounds = interleave(runs, num_rounds, title, mirrored=False)
    if not rounds.num_rounds:
        return None, True
    done = {setting: found[: rounds.num_rounds] for setting, found in passes.items()}
    cpu = {setting: [window.cpu_seconds for window in rounds.windows[setting]] for setting in done}
    return {
        **{name: value for name, value in asdict(work).items() if name != "whole_batches"},
        **rounds.ratio("kept", "default").as_json("speedup", "speedup_interval"),
        **paired_ratio(cpu["default"], cpu["kept"]).as_json("cpu_speedup", "cpu_speedup_interval"),
        "peak_ratio": median(one["peak_bytes"] for one in done["kept"])
        / median(one["peak_bytes"] for one in done["default"]),
        "passes": done,
    }, rounds.interrupted


def _images(options: AllocatorOptions) -> Path:
    """A .beton file of synthetic scenes; made once."""
    config = SceneConfig(num_train=options.num_images, num_val=12)
    folder = options.work_dir / f"scenes-{options.num_images}"
    file = folder.with_suffix(".beton")
    if not file.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            write_scenes(config, folder)
        convert(open_source(folder / "train"), file, ConversionConfig("roc"))
    return file


main = command(AllocatorOptions, __doc__, measure, allocator_table)


if __name__ == "__main__":
    run(main)

"""The process that measures with one allocator: `python -m benchmarks.training.allocator_worker FD`.

It imports torch once and runs each measurement in a fork of itself, so that each has a peak memory of its own. Requests
and replies are Python objects on the connection with file descriptor FD. The environment decides about the allocator.
"""

from __future__ import annotations

from fixres.pipelines.runtime.allocator import tune_allocator
from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported
    tune_allocator()

import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import timm
import torch

import fixres.models.predictor as predictor_module
from fixres import evaluate, finetune
from fixres.api.splits import open_splits
from fixres.config.jobs import ExtractJob
from fixres.config.parsing import parse_recipe
from fixres.evaluation.features import extract
from fixres.models.checkpoint import CheckpointInfo
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import choose_precision
from fixres.models.predictor import Predictor
from fixres.models.pretrained import OpenedForJob
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.runtime.allocator import allocator
from fixres.training.step_speed import resident_batch
from fixres.training.trainer import create_trainer

_Pass = Callable[[], tuple[int, float]]  # images, seconds


@dataclass(frozen=True)
class Work:
    """What is measured, on the CPU.

    Attributes:
        kind: "evaluation"; "features" of images on disk; "FixRes epoch" without a cache; "training" steps of the demo.
        model: timm name; None: the demo's network.
        res: pixels.
        batch_size: images.
        num_images: of a pass.
        whole_batches: inference without pieces, as `Predictor` would do on a GPU.
    """

    kind: Literal["evaluation", "features", "FixRes epoch", "training"]
    model: str | None
    res: int
    batch_size: int
    num_images: int
    whole_batches: bool = False


def measured(work: Work, data: Path) -> dict[str, Any]:
    """A pass that warms up, then one that counts: images/s, CPU seconds and page faults, peak memory of both."""
    if work.whole_batches:
        predictor_module.PIXELS_OF_THREAD = sys.maxsize
    with tempfile.TemporaryDirectory() as folder:
        one_pass = _PASSES[work.kind](work, data, Path(folder))
        one_pass()
        before = resource.getrusage(resource.RUSAGE_SELF)
        num_images, seconds = one_pass()
        after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images_per_second": num_images / seconds,
        "user_seconds": after.ru_utime - before.ru_utime,
        "system_seconds": after.ru_stime - before.ru_stime,
        "page_faults": after.ru_minflt - before.ru_minflt,
        "peak_bytes": 1024 * after.ru_maxrss,
        "allocator": allocator(),
    }


def _evaluation(work: Work, data: Path, _folder: Path) -> _Pass:
    net = _network(work, _num_classes(data))

    def one_pass() -> tuple[int, float]:
        (result,) = evaluate(net, data, resolutions=work.res, batch_size=work.batch_size, precision="fp32")
        return result.num_images, result.num_images / result.images_per_second

    return one_pass


def _features(work: Work, data: Path, folder: Path) -> _Pass:
    open_loader = open_splits({"val": data}, "roc", "cpu", None)
    net, classes = _network(work, _num_classes(data)), tuple(map(str, range(_num_classes(data))))
    predictor = Predictor(net.eval(), Normalize(), choose_precision("fp32", torch.device("cpu")))
    info = CheckpointInfo(work.model or "", {}, classes, work.res, work.res, 0.875)
    job = ExtractJob(work.model, output=folder / "features", batch_size=work.batch_size, overwrite=True)

    def one_pass() -> tuple[int, float]:
        done = extract(job, OpenedForJob(predictor, info), open_loader)
        return done.num_images, done.seconds

    return one_pass


def _fixres_epoch(work: Work, data: Path, _folder: Path) -> _Pass:
    net = _network(work, _num_classes(data))
    settings = {"cache": "no", "epochs": 1, "batch_size": work.batch_size, "precision": "fp32"}

    def one_pass() -> tuple[int, float]:
        (epoch,) = finetune(net, data, work.res, **settings).finetuning.epochs
        return epoch.num_images, epoch.seconds

    return one_pass


def _training(work: Work, _data: Path, _folder: Path) -> _Pass:
    recipe = parse_recipe(["--config", "demo"])
    precision, classes = choose_precision("fp32", torch.device("cpu")), tuple(map(str, range(12)))
    net = create_model(recipe.model, len(classes)).train()
    trainer = create_trainer(replace(recipe, compile="no"), net, Normalize(), precision, classes)
    images, labels = resident_batch(work.batch_size, work.res, precision.device)

    def one_pass() -> tuple[int, float]:
        start, steps = time.perf_counter(), work.num_images // work.batch_size
        for number in range(steps):
            trainer.step(images, labels % len(classes), number)
        return steps * work.batch_size, time.perf_counter() - start

    return one_pass


_PASSES = {
    "evaluation": _evaluation,
    "features": _features,
    "FixRes epoch": _fixres_epoch,
    "training": _training,
}


def _network(work: Work, num_classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(work.model, num_classes=num_classes).to(memory_format=torch.channels_last)


def _num_classes(data: Path) -> int:
    return len(open_beton(data).classes)


def _in_fork(connection: Connection, request: tuple[Work, Path]) -> None:
    """Measures in a fork, which sends the reply."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            connection.send(measured(*request))
            code = 0
        except Exception:  # any kind: the benchmark ends, and shows which
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(process, 0)[1]:
        connection.send(None)


def main() -> None:
    """Answers requests until the connection closes."""
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError):
        while True:
            _in_fork(connection, connection.recv())


if __name__ == "__main__":
    main()

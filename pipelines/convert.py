"""From any source to a training file: parallel, in order, verified.

Every image is decoded once, so that a damaged one is found now. JPEG files that fit pass through byte for byte, except
into RoC records, for which all are coded anew; others are downscaled and encoded. The samples stream through a window
of a few chunks per worker into the writer of the chosen format, so memory does not grow with the data set.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from pipelines.beton_writer import write_beton
from pipelines.images import EncodedSample, check_fit, fit_jpeg
from pipelines.order import epoch_order
from pipelines.sources import open_source
from pipelines.spec import BadSampleError, InputError, Source
from pipelines.webdataset import MAX_SAMPLES, write_shards

Format = Literal["roc", "ffcv", "webdataset"]
OnBad = Literal["stop", "skip"]

_CHUNK = 16  # samples per message to a worker, 20 to 300 ms of work
_CHUNKS_AHEAD = 4  # chunks in flight per worker
_SHUFFLE_SEED = 0


@dataclass
class Conversion:
    """What a conversion has done."""

    num_samples: int = 0
    """Samples written."""
    num_passed: int = 0
    """Samples whose JPEG was taken over byte for byte."""
    bytes_written: int = 0
    """Image bytes written."""
    seconds: float = 0.0
    bad_samples: list[str] = field(default_factory=list)
    """A line for each sample that was left out."""


def convert(
    source: Source | Path | str,
    dest: Path | str,
    format: Format,
    *,
    max_side: int = 500,
    quality: int = 90,
    num_workers: int | None = None,
    on_bad: OnBad = "stop",
    overwrite: bool = False,
    progress: bool = True,
) -> Conversion:
    """Converts a data set into one .beton file or a folder of webdataset shards.

    .beton files keep the source's order. Shards are written in a fixed random order, because DALI shuffles within a
    buffer only; the samples' numbers restore the source's order.

    Args:
        source: a source, or a path for `open_source`.
        dest: the file (roc, ffcv) or folder (webdataset) to make.
        format: "roc", "ffcv" or "webdataset".
        max_side: longest side of a stored image in pixels.
        quality: JPEG quality of images that are encoded again.
        num_workers: processes; 0 works in this one, None takes all cores.
        on_bad: "stop" looks at all samples, writes nothing if any is bad, and raises; "skip" leaves bad ones out.
            Either way DEST.bad.txt lists them.
        overwrite: replace an existing `dest`.
        progress: show a progress bar.
    """
    if format not in get_args(Format):
        raise InputError(f"format={format!r} is unknown; choose one of {', '.join(get_args(Format))}")
    if on_bad not in get_args(OnBad):
        raise InputError(f"on_bad={on_bad!r} is unknown; choose {' or '.join(get_args(OnBad))}")
    check_fit(max_side, quality)
    source, dest = open_source(source) if isinstance(source, (str, Path)) else source, Path(dest)
    if len(source) > MAX_SAMPLES:
        raise InputError(f"{len(source)} samples are more than {MAX_SAMPLES}; convert them in parts")
    start, result = time.perf_counter(), Conversion()
    order = epoch_order(len(source), _SHUFFLE_SEED, 0, shuffle=format == "webdataset")
    prepare = partial(_prepare, source, format, max_side, quality)
    with ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=len(source), desc=dest.name, unit=" images", disable=None if progress else True)
        )
        prepared = stack.enter_context(closing(_in_workers(prepare, order, _workers(num_workers, len(source)))))
        samples = _sort_out(prepared, result, bar, dest, on_bad)
        if format == "webdataset":
            result.num_samples = write_shards(dest, samples, source.classes, overwrite=overwrite)
        else:
            extra: dict = {}
            if format == "roc":
                from pipelines.roc.verify import check_records

                extra = {"extra_fields": ("roc",), "check": check_records}
            result.num_samples = write_beton(dest, samples, len(source), source.classes, overwrite=overwrite, **extra)
    result.seconds = time.perf_counter() - start
    return result


@dataclass(frozen=True)
class _Bad:
    """A sample that cannot be used, on its way from worker to parent."""

    index: int
    message: str


@dataclass(frozen=True)
class _Good:
    sample: EncodedSample
    passed: bool


def _prepare(source: Source, format: Format, max_side: int, quality: int, indices: np.ndarray) -> list[_Good | _Bad]:
    fit: Callable = fit_jpeg
    if format == "roc":
        from pipelines.roc.encode import fit_roc as fit  # imports numba, 0.5 s
    return [_prepare_one(source, fit, max_side, quality, int(index)) for index in indices]


def _prepare_one(source: Source, fit: Callable, max_side: int, quality: int, index: int) -> _Good | _Bad:
    try:
        data = source.read(index)
        image, height, width, *extra = fit(data, source.name(index), index, max_side, quality)
    except BadSampleError as error:
        return _Bad(index, str(error))
    sample = EncodedSample(image, height, width, int(source.labels[index]), index, tuple(extra))
    return _Good(sample, image is data)


def _sort_out(
    prepared: Iterator[_Good | _Bad], result: Conversion, bar: tqdm, dest: Path, on_bad: OnBad
) -> Iterator[EncodedSample]:
    """Passes good samples on, collects bad ones, and at the end stops if there are any and `on_bad` says so.

    After a bad sample and with on_bad="stop" nothing more is passed on: the rest is only looked at, for the report.
    """
    bad: list[_Bad] = []
    for item in prepared:
        bar.update()
        if isinstance(item, _Bad):
            bad.append(item)
        elif not bad or on_bad == "skip":
            result.num_passed += item.passed
            result.bytes_written += len(item.sample.image) + sum(map(len, item.sample.extra))
            yield item.sample
    bad.sort(key=lambda item: item.index)
    result.bad_samples = [item.message for item in bad]
    _report(bad, bar.total, dest, on_bad)


def _report(bad: list[_Bad], num_samples: int, dest: Path, on_bad: OnBad) -> None:
    report = dest.with_name(dest.name + ".bad.txt")
    if not bad:
        report.unlink(missing_ok=True)  # from an earlier attempt
        return
    report.write_text("".join(f"{item.index}\t{item.message}\n" for item in bad), errors="surrogateescape")
    if on_bad == "stop" or len(bad) == num_samples:
        raise InputError(
            f"{len(bad)} of {num_samples} samples cannot be used, the first is {bad[0].message}; {report} lists all;"
            f" repair them, or leave them out with on_bad=skip"
        )


def _workers(num_workers: int | None, num_samples: int) -> int:
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0))
    if num_workers < 0:
        raise InputError(f"num_workers={num_workers} must not be negative; 0 works in this process")
    return min(num_workers, -(-num_samples // _CHUNK))


def _in_workers(prepare: partial, order: np.ndarray, num_workers: int) -> Iterator[_Good | _Bad]:
    """`prepare` applied to chunks of `order`, results in order, with a bounded number of chunks in flight."""
    chunks = (order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK))
    if num_workers == 0:
        yield from chain.from_iterable(map(prepare, chunks))
        return
    # Forking hands the source over without pickling it. Workers use Pillow only, whose locks no parent thread holds.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_workers, context, initializer=_init_worker, initargs=(prepare,)) as pool:
        waiting: deque[Future] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_work, chunk))
                if len(waiting) >= num_workers * _CHUNKS_AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError("a worker process died, probably out of memory; use fewer workers") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_prepare_chunk: partial


def _init_worker(prepare: partial) -> None:
    global _prepare_chunk
    _prepare_chunk = prepare
    # Ctrl-C reaches the whole process group; the parent alone answers it, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent cannot end its workers; they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(indices: np.ndarray) -> list[_Good | _Bad]:
    return _prepare_chunk(indices)

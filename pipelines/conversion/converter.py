"""From any source to a training file: parallel, in order, verified, and never twice.

Every image is decoded once, so that a damaged one is found now. JPEG files that fit pass through byte for byte, except
into RoC records, for which all are coded anew; others are downscaled and encoded. The samples stream through a window
of a few chunks per worker into the writer of the chosen format, so memory does not grow with the data set. A journal
beside the unfinished file lets the same command go on where it was ended, by whatever.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from pipelines.conversion.checkpoints import Checkpoints
from pipelines.conversion.journal import Journal
from pipelines.conversion.task import Format, Task, fit_for, prepare_samples
from pipelines.formats.beton_writer import BetonWriter, finish_beton
from pipelines.formats.entry import Entry
from pipelines.formats.parts import Part
from pipelines.formats.webdataset_writer import MAX_SAMPLES, ShardWriter, num_in_whole_shards
from pipelines.images.codec import check_fit
from pipelines.images.input_formats import ExifOption
from pipelines.runtime.atomic_files import Unfinished, keep_source, resumable
from pipelines.runtime.process_pool import map_chunks, num_processes
from pipelines.sources import open_source
from pipelines.spec import InputError, Source

OnBad = Literal["stop", "skip"]

_CHUNK = 16  # samples per message to a worker, 20 to 300 ms of work
_SECONDS_BETWEEN_NOTES = 2.0  # about so much work is lost when a conversion is killed
_log = logging.getLogger(__name__)


@dataclass
class Conversion:
    """What a conversion has done."""

    dest: Path
    """The file or folder made."""
    num_samples: int = 0
    """Samples written, those of earlier attempts included."""
    num_kept: int = 0
    """Samples that an earlier attempt had done, good and bad."""
    num_passed: int = 0
    """Samples whose JPEG was taken over byte for byte."""
    bytes_written: int = 0
    """Image bytes written."""
    seconds: float = 0.0
    """Of this attempt."""
    bad_samples: list[str] = field(default_factory=list)
    """A line for each sample that was left out."""


def convert(
    source: Source | Path | str,
    dest: Path | str,
    format: Format,
    *,
    max_side: int = 500,
    quality: int = 90,
    exif: ExifOption = "ignore",
    num_workers: int | None = None,
    on_bad: OnBad = "stop",
    overwrite: bool = False,
    progress: bool = True,
    part: Part | None = None,
    restart: bool | None = False,
    fingerprint: str = "",
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
        exif: "ignore" the orientation that cameras note, as torchvision's default loader does, or "apply" it.
        num_workers: processes; 0 works in this one, None takes all cores.
        on_bad: "stop" looks at all samples and, if any is bad, raises and keeps the rest unfinished; "skip" leaves
            bad ones out. Either way DEST.bad.txt lists them.
        overwrite: replace an existing `dest`.
        progress: show a progress bar.
        part: make only this part of the data, under a name of its own (`Part.place`).
        restart: forget an unfinished file instead of continuing it; None forgets it if it is of something else.
        fingerprint: of the images' contents, where the caller knows it; an unfinished file of another is not continued.
    """
    if format not in get_args(Format):
        raise InputError(f"format={format!r} is unknown; choose one of {', '.join(get_args(Format))}")
    if on_bad not in get_args(OnBad):
        raise InputError(f"on_bad={on_bad!r} is unknown; choose {' or '.join(get_args(OnBad))}")
    check_fit(max_side, quality, exif=exif)
    source = open_source(source) if isinstance(source, (str, Path)) else source
    if len(source) > MAX_SAMPLES:
        raise InputError(f"{len(source)} samples are more than {MAX_SAMPLES}; convert them in parts")
    task = Task(source, format, max_side, quality, exif, part or Part(), fingerprint)
    start, result = time.perf_counter(), Conversion(task.part.place(Path(dest)))
    if (place := getattr(source, "path", None)) is not None:
        keep_source(Path(place), result.dest)
    num_workers = num_processes(num_workers, -(-len(task.order) // _CHUNK))
    with resumable(result.dest, overwrite, folder=format == "webdataset") as unfinished:
        journal = Journal(unfinished.journal, task.header(), restart)
        with closing(journal):
            _continue(task, unfinished, journal, result, num_workers, on_bad, progress)
    result.seconds = time.perf_counter() - start
    return result


def _continue(
    task: Task,
    unfinished: Unfinished,
    journal: Journal,
    result: Conversion,
    num_workers: int,
    on_bad: OnBad,
    progress: bool,
) -> None:
    """Takes over what is there, converts the rest, verifies."""
    kept = journal.entries
    if on_bad == "stop":  # a bad sample may have been repaired; what comes behind it must be written behind it
        kept = list(takewhile(lambda entry: not entry.is_bad, kept))
    if task.format == "webdataset":
        kept = kept[: num_in_whole_shards(kept)]
    journal.keep(kept)  # before the data is cut back to that
    order, bad = task.order, [entry for entry in kept if entry.is_bad]
    for entry in kept:
        _count(result, entry)
    result.num_kept = len(kept)
    bar = {"total": len(order), "initial": len(kept), "desc": result.dest.name, "disable": None if progress else True}
    with (
        _open_writer(task, unfinished.data, kept) as writer,
        closing(Checkpoints(writer, journal, _SECONDS_BETWEEN_NOTES)) as checkpoints,
    ):
        try:
            with tqdm(unit=" images", **bar) as shown:
                _write_rest(task, order[len(kept) :], num_workers, writer, checkpoints, result, bad, shown)
            _report(bad, len(order), result, on_bad)
        except BaseException:
            _keep_what_is_done(writer, checkpoints, journal, len(order))
            raise
        try:
            _finish(task, writer)
        except InputError:  # what is on disk is not what was written: there is nothing to continue
            journal.path.unlink(missing_ok=True)
            raise


def _open_writer(task: Task, path: Path, kept: list[Entry]) -> BetonWriter | ShardWriter:
    classes, about = task.source.classes, task.about()
    if task.format == "webdataset":
        return ShardWriter(path, classes, about=about, keep=kept)
    extra = ("roc",) if task.format == "roc" else ()
    return BetonWriter(path, len(task.order), classes, extra, about=about, keep=kept)


def _finish(task: Task, writer: BetonWriter | ShardWriter) -> None:
    if isinstance(writer, ShardWriter):
        writer.finish()
        writer.verify()
        return
    check = None
    if task.format == "roc":
        from pipelines.roc.verification import check_records as check
    finish_beton(writer, check)


def _write_rest(
    task: Task,
    order: np.ndarray,
    num_workers: int,
    writer: BetonWriter | ShardWriter,
    checkpoints: Checkpoints,
    result: Conversion,
    bad: list[Entry],
    bar: tqdm,
) -> None:
    work = partial(prepare_samples, task, fit_for(task.format))
    with closing(map_chunks(work, order, _CHUNK, num_workers)) as prepared:
        for chunk in prepared:
            for entry, sample in chunk:
                if sample is None:
                    _check_source(task.source)
                    bad.append(entry)
                    bar.set_postfix(bad=len(bad))
                else:
                    writer.write(sample)
                checkpoints.add(entry)
                _count(result, entry)
            bar.update(len(chunk))
            checkpoints.note_if_due()


def _keep_what_is_done(
    writer: BetonWriter | ShardWriter, checkpoints: Checkpoints, journal: Journal, num_samples: int
) -> None:
    """Notes what was written, as far as the disk takes it; removes a journal that has nothing to tell."""
    try:
        checkpoints.note_all()
    except OSError:
        pass  # the disk is full or gone, as the error on its way will tell; the last note stands
    if journal.num_written:
        whole = " (in whole shards)" if isinstance(writer, ShardWriter) else ""
        _log.warning("%d of %d samples are kept%s; the same command goes on", journal.num_written, num_samples, whole)
    else:
        journal.path.unlink(missing_ok=True)


def _check_source(source: Source) -> None:
    """A sample that cannot be read because the whole source is gone is not a bad sample."""
    path = getattr(source, "path", None)
    if path is not None and not Path(path).exists():
        raise InputError(f"{path} is gone; bring it back and run the same command again")


def _count(result: Conversion, entry: Entry) -> None:
    if entry.is_bad:
        return
    result.num_samples += 1
    result.num_passed += entry.passed
    result.bytes_written += sum(entry.sizes)


def _report(bad: list[Entry], num_samples: int, result: Conversion, on_bad: OnBad) -> None:
    """Lists bad samples beside the data; stops if there are any and `on_bad` says so."""
    report = result.dest.with_name(result.dest.name + ".bad.txt")
    if not bad:
        report.unlink(missing_ok=True)  # from an earlier attempt
        return
    bad = sorted(bad)
    result.bad_samples = [entry.problem for entry in bad]
    report.write_text("".join(f"{entry.index}\t{entry.problem}\n" for entry in bad), errors="surrogateescape")
    if on_bad == "stop" or len(bad) == num_samples:
        raise InputError(
            f"{len(bad)} of {num_samples} samples cannot be used, the first is {bad[0].problem}; {report} lists all;"
            " repair them, or leave them out with on_bad=skip (tools/convert_imagenet.py --on-bad skip)"
        )

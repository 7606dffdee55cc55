"""Converts any source to a training file: in parallel, in a fixed order, verified, and resumable.

Every image is decoded once, so that a damaged one is found now. JPEG files that fit are copied byte for byte, except
into RoC records, for which all images are encoded again; others are downscaled and encoded. The samples stream through
a window of a few chunks per worker into the writer of the format, so memory does not grow with the data set. A journal
beside the unfinished file lets the same command continue after any interruption.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path

from fixres.pipelines.conversion.journal import Journal
from fixres.pipelines.conversion.task import ConversionConfig, Task, fit_for, prepare_samples, stamp
from fixres.pipelines.formats.beton_reader import BetonData
from fixres.pipelines.formats.beton_writer import BetonWriter, finish_beton
from fixres.pipelines.formats.samples import EncodedSample, Entry
from fixres.pipelines.formats.webdataset_writer import MAX_SAMPLES, ShardWriter, num_in_whole_shards
from fixres.pipelines.runtime.atomic_files import atomic_file, check_free, keep_source, resumable, unfinished
from fixres.pipelines.runtime.notices import notice
from fixres.pipelines.runtime.process_pool import map_chunks, num_processes
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import InputError, Source

_MARK = "*.idx"  # all folders of shards have such a file
_CHUNK = 16  # samples per message to a worker, 20 to 300 ms of work
_ACCEPT = ", or store damaged JPEGs as Pillow shows them with damaged=accept (--damaged accept --restart)"
_log = logging.getLogger(__name__)


@dataclass
class Conversion:
    """What a conversion has done."""

    dest: Path
    """The file or folder written."""
    num_samples: int = 0
    """Samples written, those of earlier attempts included."""
    num_kept: int = 0
    """Samples that an earlier attempt had finished, good and bad."""
    num_passed: int = 0
    """Samples whose JPEG was copied byte for byte."""
    bytes_written: int = 0
    """Image bytes written, those of earlier attempts included."""
    file_bytes: int = 0
    """Size of the finished file, or of all files in the folder; .beton files are padded to whole pages."""
    disk_bytes: int = 0
    """What it takes on the disk, where the padding is holes in the file."""
    seconds: float = 0.0
    """Of this attempt."""
    bad_samples: list[str] = field(default_factory=list)
    """A line for each sample that was left out."""


def convert(source: Source | Path | str, dest: Path | str, config: ConversionConfig) -> Conversion:
    """Converts a data set into one .beton file or a folder of webdataset shards.

    .beton files keep the source's order. Shards are written in a fixed random order; the samples' numbers restore the
    source's order.

    Args:
        source: a source, or a path for `open_source`.
        dest: the file (roc, ffcv) or folder (webdataset) to write.
        config: the format and all options.

    Raises:
        InputError: bad samples, a target that exists or is being written by another process, an unfinished conversion
            with other settings.
    """
    source = open_source(source) if isinstance(source, (str, Path)) else source
    if len(source) > MAX_SAMPLES:
        raise InputError(f"{len(source)} samples are more than {MAX_SAMPLES}; convert them in parts")
    _check_ending(Path(dest), config)
    task, start = Task(source, config), time.perf_counter()
    result = Conversion(config.part.place(Path(dest)))
    if (path := getattr(source, "path", None)) is not None:
        keep_source(Path(path), result.dest)
    _log_uncovered(source)
    num_workers = num_processes(config.num_workers, -(-len(task.order) // _CHUNK))
    is_folder, discard = config.format == "webdataset", config.restart is not False
    if not _was_finished(task, result):
        with resumable(result.dest, config.overwrite, is_folder, discard, mark=_MARK) as paths:
            journal = Journal(paths.journal, task.header(), config.restart)
            _Attempt(task, journal, result).run(paths.data, num_workers)
    result.file_bytes, result.disk_bytes = _sizes(result.dest)
    result.seconds = time.perf_counter() - start
    return result


def _log_uncovered(source: Source) -> None:
    inner = getattr(source, "source", source)
    if isinstance(inner, BetonData) and "roc" not in inner.field_names:
        notice(f"{inner.path}: its images have no checksum, so damage that still decodes is not found and is kept")


def _sizes(dest: Path) -> tuple[int, int]:
    """Size of a file or of the files in a folder, and what they take on the disk."""
    found = [os.stat(file) for file in (dest.iterdir() if dest.is_dir() else (dest,))]
    return sum(one.st_size for one in found), sum(512 * one.st_blocks for one in found)  # POSIX: blocks of 512 bytes


def check_dest(dest: Path, config: ConversionConfig) -> None:
    """Checks before the source is read, which may take minutes, that `convert` could write to `dest`.

    Raises:
        InputError: `dest` has the ending of another kind of file, or exists and may not be replaced.
    """
    _check_ending(dest, config)
    dest = config.part.place(dest)
    if not unfinished(dest).journal.exists():  # else `dest` may be what a killed process had finished
        check_free(dest, config.overwrite, config.format == "webdataset", _MARK)


def _check_ending(dest: Path, config: ConversionConfig) -> None:
    """Raises InputError for the ending of another kind of file, which readers and people would be misled by."""
    if config.format == "webdataset":
        if dest.suffix in (".beton", ".tar"):
            raise InputError(f"{dest}: format webdataset writes a folder; choose a name without {dest.suffix}")
    elif dest.suffix not in ("", ".beton"):
        raise InputError(f"{dest} must end in .beton for format {config.format}; choose another name or format")


def _was_finished(task: Task, result: Conversion) -> bool:
    """Whether an earlier process was killed when its file had its name, but before it removed the journal.

    Then removes the journal and counts the samples.
    """
    data, journal = unfinished(result.dest)
    if data.exists() or not journal.exists() or not result.dest.exists() or task.config.restart:
        return False
    attempt = _Attempt(task, Journal(journal, task.header(), restart=None), result)
    entries = attempt.unchanged()
    if len(entries) < len(task.order) or (task.config.on_bad == "stop" and any(entry.is_bad for entry in entries)):
        return False
    if result.dest.stat().st_mtime_ns < journal.stat().st_mtime_ns:  # the tables are written after the last entries
        return False
    attempt.take_over(entries)
    journal.unlink(missing_ok=True)
    return True


class _Attempt:
    """One process's work on a conversion: continues an earlier one, converts the rest, verifies the result."""

    def __init__(self, task: Task, journal: Journal, result: Conversion) -> None:
        self._task, self._journal, self._result = task, journal, result
        self._order = task.order
        self._bad: list[Entry] = []

    def run(self, data: Path, num_workers: int) -> None:
        """Writes to `data`, an unfinished file or folder."""
        kept = self._kept_entries()
        self._journal.start(kept)  # before the writer cuts the data back to these entries
        self.take_over(kept)
        with _open_writer(self._task, data, kept) as writer, closing(self._journal):
            try:
                self._write_rest(writer, num_workers)
                self._report()
                self._journal.checkpoint(writer.sync)
            except BaseException:
                self._keep_unfinished(writer)
                raise
            try:
                _finish(self._task, writer)
            except InputError:  # the disk does not hold what was written, so it cannot be continued
                self._journal.path.unlink(missing_ok=True)
                raise

    def unchanged(self) -> list[Entry]:
        """The journal's entries up to the first whose file was replaced since."""
        source, entries = self._task.source, self._journal.entries
        for number, entry in enumerate(entries):
            if stamp(source, entry.index) != entry.stamp:
                _log.warning("%s was replaced; it and what follows is converted again", source.name(entry.index))
                return entries[:number]
        return entries

    def _kept_entries(self) -> list[Entry]:
        kept = self.unchanged()
        if self._task.config.on_bad == "stop":  # a repaired sample must be written before the samples after it
            kept = list(takewhile(lambda entry: not entry.is_bad, kept))
        return kept[: num_in_whole_shards(kept)] if self._task.config.format == "webdataset" else kept

    def take_over(self, kept: list[Entry]) -> None:
        """Counts an earlier process's samples."""
        for entry in kept:
            self._count(entry)
        self._result.num_kept = len(kept)

    def _write_rest(self, writer: BetonWriter | ShardWriter, num_workers: int) -> None:
        config, kept = self._task.config, self._result.num_kept
        work = partial(prepare_samples, self._task, fit_for(config.format))
        with (
            progress_bar(len(self._order), self._result.dest.name, done=kept, shown=config.progress, leave=True) as bar,
            closing(map_chunks(work, self._order[kept:], _CHUNK, num_workers)) as chunks,
        ):
            for chunk in chunks:
                for entry, sample in chunk:
                    self._take(entry, sample, writer)
                bar.update(len(chunk))
                if self._bad:
                    bar.set_postfix(bad=len(self._bad), refresh=False)
                self._journal.checkpoint_if_due(writer.sync)

    def _take(self, entry: Entry, sample: EncodedSample | None, writer: BetonWriter | ShardWriter) -> None:
        if sample is None:
            _check_source(self._task.source)
        else:
            writer.write(sample)
        self._journal.add(entry)
        self._count(entry)

    def _count(self, entry: Entry) -> None:
        if entry.is_bad:
            self._bad.append(entry)
            return
        self._result.num_samples += 1
        self._result.num_passed += entry.passed
        self._result.bytes_written += sum(entry.sizes)

    def _keep_unfinished(self, writer: BetonWriter | ShardWriter) -> None:
        """Notes what was written as far as the disk allows; removes a journal without entries."""
        journal = self._journal
        try:
            journal.checkpoint(writer.sync)
        except OSError:
            pass  # the disk is full or has failed, which the current error reports; the last checkpoint is valid
        if (num_good := journal.num_written - len(self._bad)) > 0:
            whole = " (in whole shards)" if isinstance(writer, ShardWriter) else ""
            counts = f"{num_good} of {len(self._order)} samples"
            _log.warning("%s are kept%s; run the same command again to continue", counts, whole)
        elif not journal.num_written:
            journal.path.unlink(missing_ok=True)

    def _report(self) -> None:
        """Lists bad samples beside the data; raises InputError if there are any and `on_bad` is "stop"."""
        dest, num_samples = self._result.dest, len(self._order)
        report = dest.with_name(dest.name + ".bad.txt")
        if not self._bad:
            report.unlink(missing_ok=True)  # from an earlier attempt
            return
        bad = sorted(self._bad)
        self._result.bad_samples = [entry.problem for entry in bad]
        with atomic_file(report, overwrite=True) as partial:
            partial.write_text("".join(f"{entry.index}\t{entry.problem}\n" for entry in bad), errors="surrogateescape")
        if self._task.config.on_bad == "stop" or len(bad) == num_samples:
            raise InputError(
                f"{len(bad)} of {num_samples} samples cannot be used, the first is {bad[0].problem}; {report} lists"
                " all; repair them, leave them out with on_bad=skip (fixres convert --on-bad skip), or remove them and"
                " convert with --restart"
                + (_ACCEPT if any("the JPEG is damaged" in entry.problem for entry in bad) else "")
            )


def _open_writer(task: Task, path: Path, kept: list[Entry]) -> BetonWriter | ShardWriter:
    classes, about = task.source.classes, task.about()
    if task.config.format == "webdataset":
        return ShardWriter(path, classes, about=about, keep=kept)
    extra = ("roc",) if task.config.format == "roc" else ()
    return BetonWriter(path, len(task.order), classes, extra, about=about, keep=kept)


def _finish(task: Task, writer: BetonWriter | ShardWriter) -> None:
    if isinstance(writer, ShardWriter):
        writer.finish()
        writer.verify()
        return
    check = None
    if task.config.format == "roc":
        from fixres.pipelines.roc.verification import check_records as check
    finish_beton(writer, check)


def _check_source(source: Source) -> None:
    """If the whole source has disappeared, its samples are not bad samples."""
    path = getattr(source, "path", None)
    if path is not None and not Path(path).exists():
        raise InputError(f"{path} no longer exists; restore it and run the same command again")

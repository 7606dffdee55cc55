"""The index file and the journals: what was written is read, by any processes in any order; damage is found."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.pipelines.crop_index.index_file import HEADER, IndexFile
from fixres.pipelines.crop_index.journal import JournalWriter, journals_of, read_journal
from fixres.pipelines.crop_index.merging import load, merge
from fixres.pipelines.crop_index.records import Record, digest, pack
from fixres.pipelines.spec import InputError
from tests.pipelines.crop_index.made import made_record

NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: b"\0" not in name)


def write(place: Path, *parts: list[Record]) -> None:
    """A journal for each part; none of the writers runs on."""
    for records in parts:
        journal = JournalWriter(place)
        journal.append(records)
        journal.close()


def content(place: Path) -> list[tuple[bytes, tuple[int, ...], bytes, bytes]]:
    """All that a reader finds: name, stamp, entry without its position, body."""
    loaded, found = load([place]), []
    for entry, memory in zip(loaded.tables.entries, loaded.memory_of, strict=True):
        start, size, file = int(entry["body_start"]), int(entry["body_size"]), int(entry["file"])
        body, plain = bytes(loaded.memories[memory][start : start + size]), entry.copy()
        plain["file"] = plain["body_start"] = 0
        found.append((loaded.tables.names[file], tuple(loaded.tables.stamps[file].tolist()), plain.tobytes(), body))
    return found


def expected(records: list[Record]) -> list[tuple[bytes, tuple[int, ...], bytes, bytes]]:
    return [(one.name, tuple(one.stamp), one.entry.tobytes(), one.body) for one in records]


@settings(max_examples=12, deadline=None)
@given(names=st.lists(NAMES, max_size=12, unique=True), seed=st.integers(0, 2**32), num_parts=st.integers(1, 4))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, names, seed, num_parts) -> None:
    place = tmp_path_factory.mktemp("made") / ".fixres-index"
    rng = np.random.default_rng(seed)
    records = [made_record(name, item, rng, coarse=b"c" * item) for name in sorted(names) for item in range(2)]
    # Images of one file belong together if the file looked the same.
    records = [one._replace(stamp=records[k - k % 2].stamp) for k, one in enumerate(records)]
    shuffled = [records[k] for k in rng.permutation(len(records))]
    write(place, *(shuffled[k::num_parts] for k in range(num_parts)))
    assert content(place) == expected(records)
    assert merge(place)
    assert content(place) == expected(records) and not journals_of(place)
    alone = place.with_name("alone")
    write(alone, records)
    merge(alone)
    assert not records or alone.read_bytes() == place.read_bytes()


def test_later_records_replace_those_of_a_changed_file(tmp_path: Path) -> None:
    place, rng = tmp_path / "index", np.random.default_rng(0)
    shard = [made_record(b"a.tar", item, rng) for item in (512, 2048)]
    shard[1] = shard[1]._replace(stamp=shard[0].stamp)
    other = made_record(b"b.jpg", 0, rng)
    write(place, [*shard, other])
    merge(place)
    replaced = made_record(b"a.tar", 512, rng, mtime_ns=2)
    write(place, [replaced])
    for _ in range(2):
        assert content(place) == expected([replaced, other])  # nothing is left of the old shard
        merge(place)
    assert merge(place, keep=lambda name: name == b"a.tar")
    assert content(place) == expected([replaced])


def test_a_record_is_complete_or_ignored(tmp_path: Path) -> None:
    place, rng = tmp_path / "index", np.random.default_rng(1)
    records = [made_record(b"%d" % k, 0, rng) for k in range(4)]
    write(place, records)
    (path,) = journals_of(place)
    whole, stops = path.read_bytes(), np.cumsum([8, *map(len, pack(records))])
    for length in {*rng.integers(0, len(whole), 40).tolist(), *stops.tolist(), *(stops[1:] - 1).tolist()}:
        path.write_bytes(whole[:length])
        journal = read_journal(path)
        num = int((stops[1:] <= length).sum())
        assert (journal.names if journal else []) == [one.name for one in records[:num]]


def test_a_journal_is_read_while_its_writer_runs_and_merged_after_its_end(tmp_path: Path) -> None:
    place, rng = tmp_path / "index", np.random.default_rng(2)
    first, second = (made_record(name, 0, rng) for name in (b"a", b"b"))
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        journal = JournalWriter(place)
        journal.append([first])
        os.write(go, b"x")
        signal.pause()
    os.read(ready, 1)
    assert content(place) == expected([first])
    assert merge(place) and len(journals_of(place)) == 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    write(place, [second])
    assert merge(place) and not journals_of(place)
    assert content(place) == expected([first, second])


def test_damage_is_found(tmp_path: Path) -> None:
    place, rng = tmp_path / "index", np.random.default_rng(3)
    records = [made_record(b"%d.jpg" % k, 0, rng) for k in range(5)]
    write(place, records)
    merge(place)
    whole, tables = place.read_bytes(), int(np.frombuffer(place.read_bytes(), HEADER, 1)["tables_start"][0])
    for at in [*range(HEADER.itemsize), *rng.integers(tables, len(whole), 60).tolist()]:
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"index .*fixres index FOLDER --overwrite"):
            IndexFile(place)
    for length in rng.integers(0, len(whole), 20).tolist():
        place.write_bytes(whole[:length])
        with pytest.raises(InputError, match="index"):
            IndexFile(place)


def test_a_journal_of_the_layout_without_change_times_is_ignored(tmp_path: Path) -> None:
    place, record = tmp_path / "index", made_record(b"a", 0, np.random.default_rng(0))
    write(place, [record])
    (path,) = journals_of(place)
    entry = record.entry.tobytes()
    size = 32 + len(entry) + 1 + len(record.body) + 8
    packed = struct.pack("<IIIIqq", 0x52786469, size, len(entry), 1, 9, 9) + entry + b"a" + record.body
    path.write_bytes(b"FIXRESJ1" + packed + int(digest(np.frombuffer(packed, np.uint8))).to_bytes(8, "little"))
    assert read_journal(path) is None

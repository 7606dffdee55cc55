"""Feeds mutated index files and journals to the engine. It must refuse each one, or decode crops and nothing else.

With `coarse`, the files of coarse levels are mutated, and all crops come from them.

python -m tests.pipelines.crop_index.index_fuzzer --num 100000

Half of the mutated files get new checksums, as somebody would who wants to harm. A crash ends the process with a
signal. An AssertionError ends it if bytes outside the output were written, or if an image that is used as if there were
no index (it is scanned again) has other pixels.
"""

from __future__ import annotations

import faulthandler
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fixres.config.parsing import parse
from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.crop_index.index_file import HEADER
from fixres.pipelines.crop_index.journal import JournalWriter, journals_of
from fixres.pipelines.crop_index.location import NAME
from fixres.pipelines.crop_index.merging import load
from fixres.pipelines.crop_index.records import ENTRY, FileStamp, Record, digest
from fixres.pipelines.loaders.indexed_crops import IndexedCrops
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import Boxes, crop_boxes
from fixres.pipelines.sources import open_folder
from fixres.pipelines.spec import InputError, TrainCrop
from tests.pipelines.roc.conftest import photo
from tests.pipelines.roc.fuzzer import mutate

_GUARD, _SIDE = 4096, 16


def make_folder(folder: Path, height: int) -> None:
    """Three images: 4:2:0 in several rows and columns of checkpoints, 4:4:4, and a progressive one."""
    (folder / "a").mkdir(parents=True)
    for number, options in enumerate(({"subsampling": 2}, {"subsampling": 0}, {"progressive": True})):
        width = max(300 - 99 * number, height)
        Image.fromarray(photo(height + number, width)).save(folder / "a" / f"{number}.jpg", **options)


def rewritten(place: Path) -> bytes:
    """A journal with the records of an index."""
    loaded, records = load([place]), []
    for entry in loaded.tables.entries:
        start, size, file = int(entry["body_start"]), int(entry["body_size"]), int(entry["file"])
        stamp = FileStamp(*loaded.tables.stamps[file].tolist())
        records.append(Record(loaded.tables.names[file], stamp, entry, bytes(loaded.memories[0][start : start + size])))
    journal = JournalWriter(place)
    journal.append(records)
    journal.close()
    (path,) = journals_of(place)
    content = path.read_bytes()
    path.unlink()
    return content


def reseal(data: bytes) -> bytes:
    """The file with correct checksums, as far as its tables lie in it."""
    content = np.frombuffer(bytearray(data), np.uint8)
    if content.size < HEADER.itemsize:
        return data
    header = content[: HEADER.itemsize].view(HEADER)
    start, num_files, num_entries = (int(header[name][0]) for name in ("tables_start", "num_files", "num_entries"))
    if start > content.size or start + 32 * num_files + ENTRY.itemsize * num_entries > content.size:
        return data
    at = start + 32 * num_files
    for entry in content[at : at + ENTRY.itemsize * num_entries].view(ENTRY):
        first, size = int(entry["body_start"]), int(entry["body_size"])
        if 0 <= first <= content.size and 0 <= size <= content.size - first:
            entry["body_digest"] = digest(content[first : first + size])
    header["tables_digest"] = digest(content[start:])
    header["header_digest"] = digest(content[: HEADER.itemsize - 8])
    return content.tobytes()


def crops_of(folder: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Crops of all images, uint8 (3, r, r, 3), and what is wrong with images that have none."""
    crops, indices = IndexedCrops(open_folder(folder), TrainCrop(), 0.8), np.arange(3)
    for store in crops.index.stores:
        store.may_write = False
    buffer = np.full(2 * _GUARD + 9 * _SIDE * _SIDE, 77, np.uint8)
    out = buffer[_GUARD:-_GUARD].reshape(3, _SIDE, _SIDE, 3)

    def boxes(sizes: np.ndarray) -> list[Boxes]:
        return [crop_boxes(TrainCrop(), 0, 0, indices, sizes, _SIDE)]

    problems = crops.fill(indices, boxes, [out]).problems
    assert (buffer[:_GUARD] == 77).all() and (buffer[-_GUARD:] == 77).all()
    return out, problems


def fuzz(num: int, seed: int, folder: Path, coarse: bool = False) -> Counter[str]:
    """Tries `num` mutations in a new folder; returns how many had each outcome."""
    make_folder(folder, 192 if coarse else 70)
    place, random, outcomes = folder / NAME, np.random.default_rng(seed), Counter()
    build_index(open_folder(folder), IndexingConfig(1, progress=False))
    plain, _ = crops_of(folder)
    if coarse:
        place = place.with_name(f"{NAME}-coarse")
        build_index(open_folder(folder), IndexingConfig(1, progress=False, coarse=True))
    whole, journal, (reference, _) = place.read_bytes(), rewritten(place), crops_of(folder)
    part = place.with_name(f"{place.name}.x.part")
    for number in range(num):
        if number % 4 == 3:
            place.unlink(missing_ok=True)
            part.write_bytes(mutate(journal, random))
        else:
            start = int(np.frombuffer(whole, HEADER, 1)["tables_start"][0])
            tables = number % 4 == 0 or random.random() < 0.5
            changed = whole[:start] + mutate(whole[start:], random) if tables else mutate(whole, random)
            place.write_bytes(reseal(changed) if number % 2 else changed)
        try:
            out, problems = crops_of(folder)
        except InputError as error:
            outcomes["refused" if "fixres index" in str(error) else str(error)[-40:]] += 1
            assert "fixres index" in str(error), error
            continue
        finally:
            part.unlink(missing_ok=True)
        assert all("fixres index" in line for line in problems.values()), problems
        same = all(
            any((out[slot] == one[slot]).all() for one in (reference, plain)) for slot in {0, 1, 2} - set(problems)
        )
        outcomes["an image refused" if problems else "the same crops" if same else "other crops"] += 1
        assert same or problems or number % 2, "an index without new checksums gave other crops"
    return outcomes


@dataclass(frozen=True)
class FuzzOptions:
    """Options of the fuzzer."""

    num: int = 10_000
    """Mutations."""
    seed: int = 0
    """Of the mutations."""
    coarse: bool = False
    """Mutate coarse levels."""


def main() -> None:
    options = parse(FuzzOptions, sys.argv[1:], __doc__ or "")
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        print(dict(fuzz(options.num, options.seed, Path(folder) / "images", options.coarse)))


if __name__ == "__main__":
    run(main)

"""Writes webdataset tar shards with the index files that DALI's reader wants.

A folder of shards holds

* `shard-000000.tar`, ...: for each sample the members `KEY.jpg`, `KEY.cls` (class number in decimal digits) and
  `KEY.index` (int64, little-endian: the number that KEY spells with nine digits, which is the sample's index in what
  was converted). DALI hands out `index` as a number, and cannot hand out keys.
* `shard-000000.idx`, ...: where the members lie, in the format of DALI's `wds2idx`, version 1.2.
* `classes.json`: {"classes": [names in label order], "num_samples": N}.

Equal samples give equal bytes: times, owners and modes in the tar headers are fixed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from pipelines.images import EncodedSample
from pipelines.sources.tars import INDEX_VERSION, TABLE_NAME, TarSource
from pipelines.spec import InputError
from pipelines.writing import atomic_folder, verify

_BLOCK = 512  # tar's unit; a plain member's data follow its one header block
MAX_SAMPLES = 10**9  # nine digits


def write_shards(
    folder: Path,
    samples: Iterable[EncodedSample],
    classes: Sequence[str],
    samples_per_shard: int = 1000,
    overwrite: bool = False,
) -> int:
    """Writes a folder of shards, reads it back, and only then gives it its name.

    DALI shuffles within a buffer only, so samples should come in random order; `index` keeps their true place, and
    `TarSource` restores it.

    Args:
        folder: the folder's final name.
        samples: taken one at a time; an exception from here leaves nothing behind.
        classes: class names in label order.
        samples_per_shard: 1000 ImageNet images make about 60 MB.
        overwrite: replace an existing folder.

    Returns:
        Number of samples written.
    """
    if samples_per_shard < 1:
        raise InputError(f"samples_per_shard={samples_per_shard} must be at least 1")
    facts: list[tuple[int, int, int, int]] = []
    with atomic_folder(folder, overwrite) as partial:
        remaining = _noting(samples, facts)
        number = 0
        while shard := list(islice(remaining, samples_per_shard)):
            _write_shard(partial / f"shard-{number:06d}", shard)
            number += 1
        if not facts:
            raise InputError(f"no samples to write to {folder}")
        table = {"classes": list(classes), "num_samples": len(facts)}
        (partial / TABLE_NAME).write_text(json.dumps(table, indent=1) + "\n")
        in_order = np.array(sorted(facts), np.int64)
        verify(TarSource(partial), in_order[:, 1], in_order[:, 2:])
    return len(facts)


def _noting(samples: Iterable[EncodedSample], facts: list[tuple[int, int, int, int]]) -> Iterator[EncodedSample]:
    """Passes samples on and keeps of each what the verification compares: index, label, height, width."""
    for sample in samples:
        facts.append((sample.index, sample.label, sample.height, sample.width))
        yield sample


def _write_shard(stem: Path, samples: list[EncodedSample]) -> None:
    lines = [f"{INDEX_VERSION} {len(samples)}"]
    with (
        open(stem.with_suffix(".tar"), "wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for sample in samples:
            members = {
                "jpg": sample.image,
                "cls": str(sample.label).encode(),
                "index": sample.index.to_bytes(8, "little"),
            }
            lines.append(
                " ".join(_add(tar, file, f"{sample.index:09d}", ending, data) for ending, data in members.items())
            )
    stem.with_suffix(".idx").write_text("\n".join(lines) + "\n")


def _add(tar: tarfile.TarFile, file: io.BufferedWriter, key: str, ending: str, data: bytes) -> str:
    """Appends a member; returns its entry in the index: ending, position, size, name."""
    member = tarfile.TarInfo(f"{key}.{ending}")
    member.size = len(data)
    member.mode = 0o644
    position = file.tell() + _BLOCK
    tar.addfile(member, io.BytesIO(data))
    return f"{ending} {position} {len(data)} {member.name}"

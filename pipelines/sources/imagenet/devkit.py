"""Labels of the official val images, from the devkit archive of ILSVRC2012."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from fixres.pipelines.formats.tar_index import Memory, walk
from fixres.pipelines.imagenet_classes import is_synset
from fixres.pipelines.sources.imagenet.matfile import MatError, read_structs
from fixres.pipelines.spec import InputError

DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_META = "data/meta.mat"
_MAX_BYTES = 256 << 20  # uncompressed; the real devkit has a few MB


def devkit_labels(archive: Path, stems: Sequence[str]) -> list[str]:
    """The synset of each val image.

    Line n of the ground truth is the ILSVRC2012_ID of image ILSVRC2012_val_n, and `meta.mat` maps that ID to a synset.

    Args:
        archive: the val archive; the devkit is next to it, packed (.tar.gz) or unpacked.
        stems: the images' names without endings, distinct.
    """
    place, truth, meta = _devkit(archive)
    synsets = _synsets(meta, place)
    ids = truth.split()
    if len(ids) != len(stems):
        raise InputError(f"{place} has {len(ids)} labels, but {archive} holds {len(stems)} images; download it again")
    labels = []
    for stem in stems:
        match = re.fullmatch("ILSVRC2012_val_([0-9]{8})", stem)
        if not match or not 1 <= int(match[1]) <= len(ids):
            raise InputError(f"{archive}: {stem!r} is not one of ILSVRC2012_val_00000001 to {len(ids):08d}")
        number = ids[int(match[1]) - 1]
        if number not in synsets:
            raise InputError(f"{place}: {_TRUTH} gives {stem} the ID {number[:20]!r}, which {_META} does not have")
        labels.append(synsets[number])
    return labels


def _devkit(archive: Path) -> tuple[Path, str, bytes]:
    """The devkit's path, its ground truth and its meta.mat."""
    packed, unpacked = archive.with_name(f"{DEVKIT}.tar.gz"), archive.with_name(DEVKIT)
    if packed.is_file():
        files = _unpack(packed)
        place = packed
    elif unpacked.is_dir():
        files = {name: (unpacked / name).read_bytes() for name in (_TRUTH, _META) if (unpacked / name).is_file()}
        place = unpacked
    else:
        raise InputError(
            f"{archive} has no labels: put {packed.name} next to it, or give a file of labels with --val-labels"
        )
    for name in (_TRUTH, _META):
        if name not in files:
            raise InputError(f"{place} holds no {name}; download it again")
    return place, files[_TRUTH].decode("ascii", "replace"), files[_META]


def _unpack(packed: Path) -> dict[str, bytes]:
    try:
        with gzip.open(packed) as file:
            data = file.read(_MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{packed} is damaged ({error}); download it again") from None
    if len(data) > _MAX_BYTES:
        raise InputError(f"{packed} unpacks to more than {_MAX_BYTES >> 20} MiB; this is not the devkit")
    files = {}
    for member in walk(Memory(data), str(packed)):
        for name in (_TRUTH, _META):
            if member.name == f"{DEVKIT}/{name}" or member.name == name:
                files[name] = data[member.offset : member.offset + member.size]
    return files


def _synsets(meta: bytes, place: Path) -> dict[str, str]:
    """Synset by ILSVRC2012_ID, written as in the ground truth."""
    try:
        rows = read_structs(meta, "synsets", ("ILSVRC2012_ID", "WNID"))
    except MatError as error:
        raise InputError(f"{place}: {_META} cannot be read ({error}); download it again") from None
    synsets: dict[str, str] = {}
    for number, synset in rows:
        if not isinstance(number, float) or not isinstance(synset, str) or not is_synset(synset):
            raise InputError(f"{place}: {_META} has a row that is not a synset; download it again")
        if synsets.setdefault(f"{number:g}", synset) != synset:
            raise InputError(f"{place}: {_META} has two synsets of ID {number:g}; download it again")
    return synsets

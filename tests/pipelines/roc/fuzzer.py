"""Feeds mutated RoC samples to the kernels that decode and cut. They must refuse each one or return a clean image.

python -m tests.pipelines.roc.fuzzer --num 100000
NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python -m tests.pipelines.roc.fuzzer --num 20000   # checks each index

A crash ends the process with a signal. An AssertionError ends it if bytes were written outside the output, or if the
outcome depends on bytes around the sample (which were then read).
"""

from __future__ import annotations

import faulthandler
import io
import sys
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fixres.config.parsing import parse
from fixres.pipelines.roc.cut_batch import NUM_PLAN, plan_cuts, write_cuts
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.decoder.turbojpeg import Decompressor, load
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.roc.layout import BYTES, ERRORS, NUM_COUNTS, NUM_SAMPLE_COLUMNS, OK, PIXELS, ROC_SIZE
from fixres.pipelines.runtime.exit_codes import run
from tests.pipelines.roc.conftest import decode_whole

_GUARD = 4096  # bytes around output and record
_INTERESTING = (0, 1, 2, 7, 8, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def samples() -> list[tuple[bytes, bytes, int, int]]:
    """Image field, `roc` field, height, width of small images of several kinds."""
    random = np.random.default_rng(11)
    made = []
    for height, width, options in (
        (97, 130, RocQuality(min_short_side=16, num_levels=3)),
        (64, 48, RocQuality(min_short_side=16, subsampling="4:4:4")),
        (40, 200, RocQuality(min_short_side=16, subsampling="4:2:2", quality=70)),
    ):
        coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        image = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
        made.append((*encode(image, options), height, width))
    return made


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """One to four changes: bytes, words with special values, deletions, repeats, swaps."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(0, len(changed)))
        if random.random() < 0.6:  # headers are short, but most checks are about them
            at = min(at, int(random.integers(0, 700)))
        kind = random.integers(0, 6)
        if kind == 0:
            changed[at] = random.integers(0, 256)
        elif kind == 1:
            changed[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 2:
            value = int(random.choice(_INTERESTING)) + int(random.integers(-2, 3))
            aligned = at // 4 * 4
            changed[aligned : aligned + 4] = (value % 2**32).to_bytes(4, "little")
        elif kind == 3:
            del changed[at : at + int(random.integers(1, 200))]
        elif kind == 4:
            other = int(random.integers(0, len(changed)))
            size = int(random.integers(1, 64))
            changed[at : at + size] = changed[other : other + size]
        else:
            changed[at:at] = changed[at : at + int(random.integers(1, 64))]
        if not changed:
            return data[:1]
    return bytes(changed)


def _file(image: bytes, record: bytes, size: tuple[int, int], fill: int) -> tuple[np.ndarray, np.ndarray]:
    """A file whose bytes around the two fields are all `fill`, and its sample table."""
    guard = bytes([fill]) * _GUARD
    data = np.frombuffer(guard + image + guard + record + guard, np.uint8)
    return data, np.array([[_GUARD, len(image), 2 * _GUARD + len(image), len(record), *size]])


class Fuzzer:
    """Runs the kernels on one sample at a time.

    Attributes:
        cut_codes: how often the cutter returned each code. `run` returns those of the decoder.
    """

    def __init__(self, seed: int) -> None:
        load()
        self.cut_codes: Counter = Counter()
        self._random = np.random.default_rng(seed)
        self._samples = samples()
        self._decompressor = Decompressor()
        image, record, *size = self._samples[0]
        self._valid = (*_file(image, record, size, 0), np.array([[3.0, 5.0, 40.0, 50.0]]), 33)
        self._valid_outcome = self._decode(*self._valid)

    def run(self, num: int) -> Counter:
        """Tries `num` mutants; returns how often the decoder returned each code."""
        codes = Counter()
        for _ in range(num):
            code = self._try_one()
            codes[code] += 1
            # a refused image must not change the state of the decompressor
            assert code == OK or self._decode(*self._valid) == self._valid_outcome, "a bad sample changed the next one"
        return codes

    def _try_one(self) -> int:
        random = self._random
        image, record, height, width = self._samples[random.integers(0, len(self._samples))]
        target = random.random()
        if target < 0.6:
            record = mutate(record, random)
        if target > 0.4:
            image = mutate(image, random)
        size = (height, width) if random.random() < 0.9 else tuple(int(v) for v in random.choice(_INTERESTING, 2))
        if random.random() < 0.1:
            record = b""
        box, resolution = self._box(height, width), int(random.choice([8, 33, 64, 224]))
        outcomes, cuts = [], []
        for fill in (0xD9, 0x00):
            data, table = _file(image, record, size, fill)
            if random.random() < 0.02:  # outside the file: nothing is read, so the fill does not matter
                far = int(random.choice([-(2**62), -(10**5), 10**5, 2**62]))
                table[0, random.integers(0, NUM_SAMPLE_COLUMNS)] += far
                self.cut_codes[self._cut(data, table, box, resolution)[0]] += 1
                return self._decode(data, table, box, resolution)[0]
            outcomes.append(self._decode(data, table, box, resolution))
            cuts.append(self._cut(data, table, box, resolution))
        assert outcomes[0][0] == outcomes[1][0], "bytes outside the record changed the outcome"
        assert outcomes[0][0] != OK or outcomes[0][1] == outcomes[1][1], "pixels came from outside the record"
        assert cuts[0] == cuts[1], "bytes outside the record are in the cut"
        self.cut_codes[cuts[0][0]] += 1
        return outcomes[0][0]

    def _box(self, height: int, width: int) -> np.ndarray:
        random = self._random
        h, w = random.uniform(0.5, height), random.uniform(0.5, width)
        box = np.array([[random.uniform(0, height - h), random.uniform(0, width - w), h, w]])
        if random.random() < 0.5:
            box = np.floor(box)
            box[0, 2:] = np.maximum(box[0, 2:], 1)
        if random.random() < 0.05:
            box[0, random.integers(0, 4)] = random.choice([np.nan, np.inf, -np.inf, -1, 1e18, 1e-300])
        return box

    def _decode(self, data: np.ndarray, table: np.ndarray, box: np.ndarray, resolution: int) -> tuple[int, bytes]:
        num_bytes = 3 * resolution * resolution
        guarded = np.full(num_bytes + 2 * _GUARD, 0x5A, np.uint8)
        out = guarded[_GUARD:-_GUARD].reshape(1, resolution, resolution, 3)
        codes, counts = np.empty(1, np.int64), np.empty((1, NUM_COUNTS), np.int64)
        how = np.array([True]), np.array([resolution % 3 == 0]), bool(num_bytes & 1)
        handle = self._decompressor.handle
        if table[0, ROC_SIZE] == 0:  # an ordinary file
            decode_whole(data, table, box, *how, handle, out, codes, counts)
        else:
            decode_samples(data, table, box, *how, 0.8, out, codes, counts)
        assert (guarded[:_GUARD] == 0x5A).all() and (guarded[-_GUARD:] == 0x5A).all(), "wrote outside the output"
        assert codes[0] == OK or codes[0] in ERRORS, f"unknown code {codes[0]}"
        return int(codes[0]), out.tobytes()

    def _cut(self, data: np.ndarray, table: np.ndarray, box: np.ndarray, resolution: int) -> tuple[int, bytes]:
        plans, codes, counts = np.empty((1, NUM_PLAN), np.int64), np.empty(1, np.int64), np.empty((1, NUM_COUNTS), int)
        used, cut_boxes, inside = np.empty((1, 4), np.int64), np.empty((1, 4)), bool(resolution & 1)
        plan_cuts(data, table, box, resolution, inside, resolution % 3 == 0, 0.8, plans, used, cut_boxes, codes, counts)
        size = int(counts[0, BYTES])
        assert size <= data.size, "a cut is larger than its file"
        guarded = np.full(size + 1 + 2 * _GUARD, 0x5A, np.uint8)
        out = guarded[_GUARD:-_GUARD].reshape(1, -1)
        write_cuts(data, table, plans, counts, out, codes)
        assert (guarded[:_GUARD] == 0x5A).all() and (guarded[-_GUARD:] == 0x5A).all(), "wrote outside the output"
        assert codes[0] == OK or (codes[0] in ERRORS and not out.any()), f"unknown code {codes[0]}, or a partial cut"
        if codes[0] == OK:
            _check_cut(out[0, :size].tobytes(), int(counts[0, PIXELS]), used[0])
        return int(codes[0]), out.tobytes()


def _check_cut(jpeg: bytes, num_pixels: int, used: np.ndarray) -> None:
    """The size in the cut's headers is the planned one, and the box lies in it."""
    try:
        width, height = Image.open(io.BytesIO(jpeg)).size
    except Exception:  # the tables are checked by the decoder, which may refuse them
        return
    assert width * height == num_pixels, "the cut's headers have another size than planned"
    y, x, h, w = used
    assert y >= 0 and x >= 0 and h > 0 and w > 0 and y + h <= height and x + w <= width, "the box lies outside its cut"


@dataclass(frozen=True)
class FuzzerOptions:
    """Options of the fuzzer."""

    num: int = 100_000
    """Mutated samples."""
    seed: int = 0
    """Seeds the mutations."""


def main() -> None:
    """Parses the command line, fuzzes, prints how often each code was returned."""
    options = parse(FuzzerOptions, sys.argv[1:], __doc__)
    faulthandler.enable()
    start = time.perf_counter()
    fuzzer = Fuzzer(options.seed)
    found = fuzzer.run(options.num)
    print(f"{options.num} mutants in {time.perf_counter() - start:.0f} s, no crash, no access out of bounds")
    print(" decoded      cut")
    for code in sorted(found | fuzzer.cut_codes):
        print(f"{found[code]:8d} {fuzzer.cut_codes[code]:8d}  {'OK' if code == OK else ERRORS[code]}")


if __name__ == "__main__":
    run(main)

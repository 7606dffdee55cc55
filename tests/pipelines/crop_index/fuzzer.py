"""Feeds mutated JPEG files and mutated checkpoints to the kernels that scan and decode. They must refuse or be right.

python -m tests.pipelines.crop_index.fuzzer --num 100000
NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python -m tests.pipelines.crop_index.fuzzer --num 20000

A crash ends the process with a signal. An AssertionError ends it if bytes were written outside the output, if the
outcome depends on bytes around the file (which were then read), or if a file that passes the scan cannot be decoded.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections import Counter

import numpy as np

from fixres.config.parsing import parse
from fixres.pipelines.crop_index import checkpoints as ck
from fixres.pipelines.crop_index.crops import BODY, BODY_SIZE, HEADERS, NUM_PLACE_COLUMNS, decode_indexed
from fixres.pipelines.roc.decoder.turbojpeg import Decompressor, load
from fixres.pipelines.roc.layout import ERRORS, NUM_COUNTS, OK
from fixres.pipelines.roc.layout import NUM_SAMPLE_COLUMNS as NUM_TABLE_COLUMNS
from fixres.pipelines.runtime.exit_codes import run
from tests.pipelines.crop_index.whole_files import save, simple
from tests.pipelines.roc.conftest import decode_whole, photo
from tests.pipelines.roc.fuzzer import FuzzerOptions, mutate

_GUARD = 4096  # bytes around output and file
_SIDE = 24  # of the output
_NUMBERS = (0, 1, 2, 3, 4, 8, 255, 65535, 65536, 2**31, 2**32, 2**62, -1, -(2**62))


def files() -> list[bytes]:
    """Small files of several kinds."""
    image = photo(61, 170)
    return [
        save(image, quality=80),
        save(image, quality=95, optimize=True, subsampling="4:4:4", restart_marker_blocks=3),
        save(image[..., 0], quality=60, restart_marker_rows=1),
        simple(image, 85, "440"),
        simple(image, 70, "411"),
        save(image[:9, :20], quality=90, subsampling="4:2:2"),
    ]


class Fuzzer:
    """Tries one mutant at a time.

    Attributes:
        kinds: how often the scan returned each kind.
        num_compared: mutated files that passed the scan and libjpeg-turbo.
        num_equal: those of them with equal pixels. Values that no encoder writes overflow differently.
    """

    def __init__(self, seed: int) -> None:
        load()
        self.kinds, self.num_compared, self.num_equal = Counter(), 0, 0
        self._random = np.random.default_rng(seed)
        self._files = [(data, ck.scan(data)) for data in files()]
        self._decompressor = Decompressor()

    def run(self, num: int) -> Counter:
        """Tries `num` mutants; returns how often the decoder returned each code."""
        codes = Counter()
        for _ in range(num):
            jpeg, found = self._files[self._random.integers(0, len(self._files))]
            if self._random.random() < 0.5:
                codes[self._try_file(jpeg, found)] += 1
            else:
                codes[self._try_checkpoints(jpeg, found)] += 1
        return codes

    def _try_file(self, jpeg: bytes, found: ck.Checkpoints) -> int:
        """A mutated file is scanned, and decoded with the checkpoints of the file that it was."""
        jpeg = mutate(jpeg, self._random)
        scanned = [self._scan(jpeg, fill) for fill in (0xD9, 0x00)]
        assert all((a == b).all() for a, b in zip(*scanned, strict=True)), "bytes outside the file changed the scan"
        again = scanned[0]
        self.kinds[int(again.sample[ck.KIND])] += 1
        if again.sample[ck.KIND] == ck.INDEXED:
            self._compare(jpeg, again)
        return self._decode(jpeg, found, self._box(found.sample))

    def _try_checkpoints(self, jpeg: bytes, found: ck.Checkpoints) -> int:
        random, sample, words = self._random, found.sample.copy(), found.words.copy()
        for _ in range(random.integers(1, 4)):
            if random.random() < 0.3:
                sample[random.integers(0, len(sample))] = int(random.choice(_NUMBERS))
            else:
                words[random.integers(0, len(words))] ^= 1 << int(random.integers(0, 16))
        if random.random() < 0.1:
            words = words[: random.integers(0, len(words))]
        return self._decode(jpeg, ck.Checkpoints(sample, words), self._box(found.sample))

    def _scan(self, jpeg: bytes, fill: int) -> ck.Checkpoints:
        data, _ = _guarded(jpeg, fill)
        samples, words = ck.scan_batch(data, np.array([[_GUARD, len(jpeg)]]))
        return ck.Checkpoints(samples[0], words[: ck.num_words(samples[0])])

    def _compare(self, jpeg: bytes, found: ck.Checkpoints) -> None:
        """Decodes a whole file that passed the scan."""
        size = found.sample[[ck.HEIGHT, ck.WIDTH]]
        if size.prod() > 1 << 20:
            return
        box = np.array([[0, 0, *size]], np.float64)
        code, pixels = self._crop(jpeg, found, box, np.inf, 0)
        assert code == OK, "a file that passed the scan is not decoded"
        out, codes = np.zeros((1, _SIDE, _SIDE, 3), np.uint8), np.zeros(1, np.int64)
        counts, table = np.zeros((1, NUM_COUNTS), np.int64), np.zeros((1, NUM_TABLE_COLUMNS), np.int64)
        table[0] = 0, len(jpeg), 0, 0, *size
        data, handle = np.frombuffer(jpeg, np.uint8), self._decompressor.handle
        decode_whole(data, table, box, np.ones(1, bool), np.zeros(1, bool), True, handle, out, codes, counts)
        if codes[0] == OK:
            self.num_compared += 1
            self.num_equal += out.tobytes() == pixels

    def _box(self, sample: np.ndarray) -> np.ndarray:
        random, (height, width) = self._random, sample[[ck.HEIGHT, ck.WIDTH]].tolist()
        h, w = random.uniform(0.5, height), random.uniform(0.5, width)
        box = np.array([[random.uniform(0, height - h), random.uniform(0, width - w), h, w]])
        if random.random() < 0.05:
            box[0, random.integers(0, 4)] = random.choice([np.nan, np.inf, -np.inf, -1, 1e18, 1e-300])
        return box

    def _decode(self, jpeg: bytes, found: ck.Checkpoints, box: np.ndarray) -> int:
        min_zoom = float(self._random.choice([np.inf, 1.0, 0.1]))
        outcomes = [self._crop(jpeg, found, box, min_zoom, fill) for fill in (0xD9, 0x00)]
        assert outcomes[0][0] == outcomes[1][0], "bytes outside the file changed the outcome"
        assert outcomes[0][0] != OK or outcomes[0][1] == outcomes[1][1], "pixels came from outside the file"
        return outcomes[0][0]

    def _crop(
        self, jpeg: bytes, found: ck.Checkpoints, box: np.ndarray, min_zoom: float, fill: int
    ) -> tuple[int, bytes]:
        data, places = _guarded(jpeg, fill)
        header_size = max(0, min(int(found.sample[ck.HEADER_SIZE]), len(jpeg)))
        places[0, BODY], places[0, BODY_SIZE] = _GUARD + header_size, len(jpeg) - header_size
        bicubic = np.array([min_zoom == 1.0])
        guarded = np.full(3 * _SIDE * _SIDE + 2 * _GUARD, 0x5A, np.uint8)
        out = guarded[_GUARD:-_GUARD].reshape(1, _SIDE, _SIDE, 3)
        codes, counts = np.empty(1, np.int64), np.empty((1, NUM_COUNTS), np.int64)
        arguments = data, places, found.sample[None], found.words, box, np.ones(1, bool), bicubic, True, min_zoom
        decode_indexed(*arguments, out, codes, counts)
        assert (guarded[:_GUARD] == 0x5A).all() and (guarded[-_GUARD:] == 0x5A).all(), "wrote outside the output"
        assert codes[0] == OK or codes[0] in ERRORS, f"unknown code {codes[0]}"
        return int(codes[0]), out.tobytes()


def _guarded(jpeg: bytes, fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Data whose bytes around a file are all `fill`, and the place of the file without that of its other part."""
    guard, places = bytes([fill]) * _GUARD, np.zeros((1, NUM_PLACE_COLUMNS), np.int64)
    places[0, HEADERS] = _GUARD
    return np.frombuffer(guard + jpeg + guard, np.uint8), places


def main() -> None:
    """Parses the command line, fuzzes, prints how often each code was returned."""
    options = parse(FuzzerOptions, sys.argv[1:], __doc__)
    faulthandler.enable()
    start = time.perf_counter()
    fuzzer = Fuzzer(options.seed)
    found = fuzzer.run(options.num)
    print(f"{options.num} mutants in {time.perf_counter() - start:.0f} s, no crash, no access out of bounds")
    print(f"{fuzzer.num_equal} of {fuzzer.num_compared} mutated files that decode gave libjpeg-turbo's pixels")
    for kind, num in sorted(fuzzer.kinds.items()):
        print(f"{num:8d}  {'indexed' if kind == ck.INDEXED else ck.REASONS[kind]}")
    for code, num in sorted(found.items()):
        print(f"{num:8d}  {'OK' if code == OK else ERRORS[code]}")


if __name__ == "__main__":
    run(main)

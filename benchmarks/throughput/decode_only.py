"""The decode-only bound of engine `roc`: libjpeg-turbo decodes the same cut crops, and nothing else is done."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.roc.cut import cut_crop
from fixres.pipelines.roc.decoder import turbojpeg
from fixres.pipelines.roc.decoder.turbojpeg import chroma_factors, decode_planes, read_header
from fixres.pipelines.roc.decoder.whole_image import lay_out_planes
from fixres.pipelines.runtime.numba_cache import kernel
from fixres.pipelines.sampling.crops import training_boxes
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, InputError, TrainCrop

_CHUNK = 16  # samples a thread takes at a time, as the loader's
_SEED = 0


class DecodeOnly:
    """Cuts the crops of an epoch in advance; iterating decodes them to planes, in threads. It behaves like a loader."""

    counters = None

    def __init__(self, path: Path, num_threads: int) -> None:
        turbojpeg.load()
        self._reader = BetonReader(path)
        self._pool = ThreadPoolExecutor(num_threads)
        self._decompressors = [turbojpeg.Decompressor() for _ in range(num_threads)]
        self._jpegs, self._spans = np.empty(0, np.uint8), np.empty((0, 2), np.int64)

    def set_resolution(self, resolution: int) -> None:
        """Cuts the crops of epoch 0 for an output side in pixels."""
        self._jpegs, self._spans = self._cut(resolution, 0, _SEED)

    def set_epoch(self, epoch: int) -> None:
        """Every epoch decodes the same crops."""

    def __iter__(self) -> Iterator[tuple[None, np.ndarray]]:
        """One epoch, decoded at once: None instead of images, and a row for each decoded crop instead of labels."""
        spans, num_threads = self._spans, len(self._decompressors)
        parts = [spans[first : first + _CHUNK] for first in range(0, len(spans), _CHUNK)]
        shares = [parts[thread::num_threads] for thread in range(num_threads)]
        list(self._pool.map(self._decode, self._decompressors, [self._jpegs] * num_threads, shares))
        yield None, spans

    def close(self) -> None:
        """Stops the threads."""
        self._pool.shutdown()

    def _decode(self, decompressor: turbojpeg.Decompressor, jpegs: np.ndarray, parts: list[np.ndarray]) -> None:
        for part in parts:
            if not decode_all(decompressor.handle, jpegs, part):
                raise InputError("a cut crop cannot be decoded; the file is damaged, remove it and start again")

    def _cut(self, resolution: int, epoch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """All crops of an epoch, concatenated, and where each begins and ends, int64 (N, 2)."""
        reader, index = self._reader, np.arange(len(self._reader))
        boxes = training_boxes(TrainCrop(), seed, epoch, index, reader.sizes)
        jpegs = []
        for k in index:
            fields = bytes(reader.image_bytes(k)), bytes(reader.field_bytes("roc", k))
            size, box = tuple(int(side) for side in reader.sizes[k]), tuple(float(side) for side in boxes[k])
            jpegs.append(cut_crop(*fields, size, box, resolution, MIN_TRAIN_ZOOM)[0])
        ends = np.cumsum([len(jpeg) for jpeg in jpegs])
        spans = np.column_stack([np.concatenate([[0], ends[:-1]]), ends])
        return np.frombuffer(b"".join(jpegs), np.uint8), spans


@kernel
def decode_all(handle: int, jpegs: np.ndarray, spans: np.ndarray) -> bool:
    """Decodes JPEG files to planes, which are discarded; returns whether all files were valid."""
    numbers, starts, strides = np.empty(4, np.int32), np.empty(3, np.int64), np.empty(3, np.int32)
    valid = True
    for k in range(spans.shape[0]):
        jpeg = jpegs[spans[k, 0] : spans[k, 1]]
        valid &= read_header(handle, jpeg, numbers)
        width, height = np.int64(numbers[0]), np.int64(numbers[1])
        planes = np.empty(lay_out_planes(height, width, chroma_factors(numbers[2]), starts, strides), np.uint8)
        valid &= decode_planes(handle, jpeg, height, width, planes, starts, strides)
    return valid

"""Engine `ffcv`: FFCV's own loader over a .beton file, in our order.

FFCV draws crops and flips itself, from random states of its threads that cannot be seeded. So a run repeats in order
but not in crops. Its center crop cuts round-down(crop_pct * short side) pixels about the center and averages areas
(OpenCV's INTER_AREA), which differs from Resize and CenterCrop by about a pixel at the borders.

FFCV does not report images that it cannot decode. Its buffer then keeps its old content: zeros at first, later a part
of another image. So this engine checks that each record begins and ends like a JPEG file, and decodes black images
again with Pillow. Damage in the middle of a record is not noticed; `fixres convert` never writes such
records.
"""

from __future__ import annotations

import queue
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from fixres.pipelines.formats.beton_layout import MODE_JPG
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.loaders.base import BaseLoader, empty_batch, retry_next
from fixres.pipelines.loaders.delivery import Delivery, HostBuffers, batch_buffer
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import BadSampleError, Batch, InputError, LoaderConfig, TrainCrop

if TYPE_CHECKING:
    from ffcv.loader.epoch_iterator import EpochIterator

_BATCHES_AHEAD = 3  # FFCV's own default; it keeps two more buffers
_POLL_SECONDS = 1.0  # how often the consumer checks that FFCV's thread is alive
_BLACK_STEP = 8  # every 8th row and column is checked to find black images


class FFCVLoader(BaseLoader):
    """Stock FFCV. The first batch of a process takes 9 to 15 s, because FFCV's code is compiled then."""

    decodes_on_host = True

    def __init__(self, config: LoaderConfig) -> None:
        self._stamp = _stamp(config.path)
        self._reader = BetonReader(config.path)  # FFCV itself does not check what it reads
        super().__init__(config, self._reader.classes, len(self._reader))
        self._check_memory()
        self._buffers = HostBuffers()
        with _keep_torch_threads():
            self._decoder, self._engine = self._open()

    def _check_memory(self) -> None:
        """Checks the memory: FFCV allocates the size of the largest image for each image of each buffer."""
        height, width = (int(side) for side in self._reader.sizes.max(axis=0))
        slots = self.config.batch_size * (_BATCHES_AHEAD + 2)
        needed, available = 3 * height * width * slots, psutil.virtual_memory().available
        if needed > 0.8 * available:
            raise InputError(
                f"{self.config.path}: FFCV would allocate {needed / 2**30:.0f} GiB, because its buffers fit images of "
                f"{height} x {width}, but {available / 2**30:.0f} GiB are free; convert with a smaller --max-side or "
                "lower batch_size"
            )

    def _open(self) -> tuple[Any, Any]:
        from ffcv.fields import RGBImageField
        from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.reader import Reader
        from ffcv.transforms import RandomHorizontalFlip

        _keep_numba_types_mutable()
        crop, config, side = self.config.crop, self.config, (self.resolution, self.resolution)
        if isinstance(crop, TrainCrop):
            decoder = RandomResizedCropRGBImageDecoder(side, scale=crop.scale, ratio=crop.ratio)
        else:
            decoder = CenterCropRGBImageDecoder(side, ratio=crop.crop_pct)
        flip = [RandomHorizontalFlip(crop.hflip)] if crop.hflip > 0 else []
        fields = Reader(str(config.path)).handlers
        images = [name for name, field in fields.items() if isinstance(field, RGBImageField)]
        image = "image" if "image" in images else images[0]  # as BetonReader chooses
        engine = Loader(
            str(config.path),
            batch_size=config.batch_size,
            num_workers=self._num_threads(),
            order=OrderOption.SEQUENTIAL,  # not used: each epoch brings its own order
            drop_last=False,
            batches_ahead=_BATCHES_AHEAD,
            seed=config.seed,
            # Labels come from our reader, so that only one field has to be compiled.
            pipelines={name: [decoder, *flip] if name == image else None for name in fields},
        )
        return decoder, engine

    def _num_threads(self) -> int:
        from numba import config as numba_config

        return min(max(self.config.num_workers, 1), numba_config.NUMBA_NUM_THREADS)

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        if _stamp(self.config.path) != self._stamp:  # FFCV opens it for each epoch
            raise InputError(f"{self.config.path} was replaced since it was opened; open it again")
        wanted = [indices_of(draws) for draws in self._draws(epoch, start)]
        # FFCV divides the order into batches itself. Only our last batch can be short, so its batches are the same.
        order = np.concatenate([*wanted, np.empty(0, np.int64)])
        # FFCV reads it when an epoch begins and allocates new buffers; the compiled code works for any size.
        self._decoder.output_size = (resolution, resolution)
        with _Epoch(self._engine, order) as buffers:
            for indices in wanted:
                if len(indices):
                    yield self._delivery(indices, next(buffers), epoch)
                else:
                    yield Delivery(empty_batch(resolution, self.config.device), 0, 0, [])

    def _delivery(self, indices: np.ndarray, buffer: np.ndarray, epoch: int) -> Delivery:
        # A copy, because FFCV reuses its buffers while the consumer may still hold the batch.
        images = batch_buffer(self._buffers, self.config.device, *buffer.shape).numpy()
        images[:] = buffer
        used, bad_samples = self._replace_bad(indices, images, epoch)
        labels = torch.from_numpy(self._reader.labels[used].astype(np.int64))
        batch = Batch(torch.from_numpy(images), labels, torch.from_numpy(used))
        num_bytes = int(self._reader.image_spans[indices, 1].sum())
        pixels = int(self._reader.sizes[indices].prod(axis=1).sum())
        return Delivery(batch, num_bytes, pixels, bad_samples)

    def _replace_bad(self, indices: np.ndarray, images: np.ndarray, epoch: int) -> tuple[np.ndarray, list[str]]:
        """Finds images that FFCV could not decode. Depending on `on_bad` it stops, or replaces them in `images`."""
        used, bad_samples = indices.copy(), []
        black = ~images[:, ::_BLACK_STEP, ::_BLACK_STEP].any(axis=(1, 2, 3))
        for slot in np.flatnonzero(black | ~self._ends_well(indices)):
            draws = self._candidates(int(indices[slot]))
            replacement, pixels = retry_next(self._decode, draws, self.config.on_bad, bad_samples)
            if replacement != indices[slot]:
                used[slot], images[slot] = replacement, self._crop(replacement, pixels, images.shape[1], epoch)
        return used, bad_samples

    def _ends_well(self, indices: np.ndarray) -> np.ndarray:
        """bool (B,): whether the record is raw pixels, or begins and ends like a JPEG file."""

        def whole(index: int) -> bool:
            data = self._reader.image_bytes(index)
            return bytes(data[:2]) == b"\xff\xd8" and bytes(data[-2:]) == b"\xff\xd9"

        jpeg = self._reader.modes[indices] == MODE_JPG
        return np.array([not is_jpeg or whole(int(i)) for i, is_jpeg in zip(indices, jpeg, strict=True)], bool)

    def _decode(self, index: int) -> tuple[int, np.ndarray]:
        if not self._ends_well(np.array([index]))[0]:
            raise BadSampleError(f"{self._reader.name(index)}: the JPEG is truncated; convert the data again", index)
        return index, self._reader.pixels(index)

    def _crop(self, index: int, pixels: np.ndarray, resolution: int, epoch: int) -> np.ndarray:
        """The crop of a replacement, made as in engine torch, because FFCV cannot load a single image."""
        from fixres.pipelines.loaders.pillow import resized_crop
        from fixres.pipelines.sampling.crops import crop_boxes

        crop, sizes = self.config.crop, np.array([pixels.shape[:2]])
        chosen = crop_boxes(crop, self.config.seed, epoch, np.array([index]), sizes, resolution)
        return resized_crop(crop, pixels, chosen.yxhw[0], chosen.flip[0], resolution, False)

    def _release(self) -> None:
        del self._engine, self._decoder


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_size


def _keep_numba_types_mutable() -> None:
    """Makes FFCV use a separate read-only type for file memory.

    FFCV itself sets `mutable` of numba's only type for uint8 arrays. Then kernels of this process that write to such
    arrays may fail to compile ("Cannot modify readonly array").
    """
    from ffcv.memory_managers import OSCacheManager
    from ffcv.pipeline.compiler import Compiler
    from numba import types

    data, numbers = types.Array(types.uint8, 1, "C", readonly=True), types.uint64[::1]
    state = types.Tuple([data, numbers, numbers])

    def compile_reader(_: Any) -> Any:
        def read(address, mem_state):
            size = mem_state[2][np.searchsorted(mem_state[1], address)]
            return mem_state[0][address : address + size]

        return Compiler.compile(read, data(types.uint64, state))

    OSCacheManager.compile_reader = compile_reader


@contextmanager
def _keep_torch_threads() -> Iterator[None]:
    """Restores torch's number of threads, which FFCV sets to its own; that would slow training down."""
    num_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


class _Epoch:
    """FFCV's iterator over one epoch. It stops its thread on exit and notices if the thread has died."""

    def __init__(self, engine: Any, order: np.ndarray) -> None:
        from ffcv.loader.epoch_iterator import EpochIterator
        from ffcv.pipeline.compiler import Compiler

        with _keep_torch_threads():
            Compiler.set_num_threads(engine.num_workers)
            self._iterator: EpochIterator = EpochIterator(engine, order)

    def __next__(self) -> np.ndarray:
        """uint8 (B, r, r, 3), valid until FFCV reuses this buffer."""
        # EpochIterator.__next__ would wait forever if its thread has died, for example because memory ran out.
        while True:
            try:
                _, (images,) = self._iterator.output_queue.get(timeout=_POLL_SECONDS)
                return images
            except queue.Empty:
                if not self._iterator.is_alive():
                    raise InputError(
                        "FFCV's loading thread died, see its message above; lower batch_size or try engine torch"
                    ) from None

    def __enter__(self) -> _Epoch:
        return self

    def __exit__(self, *_: object) -> None:
        iterator = self._iterator
        iterator.close()
        while iterator.is_alive():  # its last put has no timeout, so the queue must be emptied
            try:
                iterator.output_queue.get(timeout=0.05)
            except queue.Empty:
                continue
        iterator.join()

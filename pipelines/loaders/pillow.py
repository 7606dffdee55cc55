"""Engine `torch`: any source, decoded by Pillow in the worker processes of a torch DataLoader.

Its pixels are the reference for all other engines. Training crops are cut out and then resized, as in torchvision's
`resized_crop`, so pixels outside the box are not used. Evaluation crops are resized from a fractional box, which gives
the sampling grid and the weights of `Resize` followed by `CenterCrop`.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Generator
from dataclasses import replace
from multiprocessing.queues import Queue
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.loaders.base import BaseLoader, retry_next
from fixres.pipelines.loaders.delivery import Delivery, Part
from fixres.pipelines.loaders.views import Places, Views, apply
from fixres.pipelines.runtime.allocator import tune_allocator
from fixres.pipelines.runtime.data_workers import end_workers, received, start_data_worker
from fixres.pipelines.runtime.process_pool import (
    SHARED_MEMORY,
    check_shared_memory,
    fork_server,
    shared_memory_error,
)
from fixres.pipelines.sampling.draws import candidates, drawable, indices_of
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import Batch, Crop, InputError, LoaderConfig, Source, TrainCrop

_PREFETCH = 4  # batches that a worker prepares ahead; 128 images of 128 px take 6 MB
# Boxes are drawn for this many decoded images at once: 20 us per image instead of 300, and only 10 MB of pixels.
_CHUNK = 32
_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


class _Job(NamedTuple):
    """Everything that a batch depends on. Workers have no state, so epoch and resolution change without a rebuild."""

    epoch: int
    resolution: int
    draws: np.ndarray  # int64 (B,), see `sampling.draws.indices_of`


class _Result(NamedTuple):
    """A worker's result. Errors are values, because a raised error would arrive as text with its traceback."""

    images: Part
    labels: torch.Tensor
    indices: torch.Tensor
    bytes_read: int
    pixels_decoded: int
    bad_samples: list[str]
    error: InputError | OSError | None


class _Decoded(NamedTuple):
    draw: int
    num_bytes: int
    pixels: np.ndarray  # uint8 (h, w, 3)


class _Batches(Dataset):
    """Makes a batch, a pure function of a job."""

    def __init__(self, source: Source, config: LoaderConfig) -> None:
        self._source, self._drawable = source, drawable(config)
        self._views = Views(config.crop, config.views, config.seed)
        self._config = replace(config, indices=None, weights=None, source=None)  # workers get a copy
        self._labels, self._replaced = _labels_of(source), False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a worker, which opens a .beton file again: it may be another one by now."""
        self.__dict__.update(state)
        self._replaced = _labels_of(self._source) != self._labels

    def __getitem__(self, job: _Job) -> _Result:
        num, places = len(job.draws), self._views.places(job.resolution, len(job.draws))
        buffer = torch.empty(places.size, dtype=torch.uint8)
        images = self._views.images(buffer, job.resolution, num)
        used = np.empty(num, np.int64)
        result = _Result(images, torch.empty(num, dtype=torch.int64), torch.from_numpy(used), 0, 0, [], None)
        if self._replaced:
            path = self._config.path
            return result._replace(error=InputError(f"{path} was replaced since it was opened; open it again"))
        try:
            num_bytes, num_pixels = self._fill(job, buffer.numpy(), places, used, result.bad_samples)
        except (InputError, OSError) as error:
            return result._replace(error=error)
        labels = torch.from_numpy(np.asarray(self._source.labels)[used].astype(np.int64))
        return result._replace(labels=labels, bytes_read=num_bytes, pixels_decoded=num_pixels)

    def _fill(
        self, job: _Job, buffer: np.ndarray, places: Places, used: np.ndarray, bad_samples: list[str]
    ) -> tuple[int, int]:
        """Fills in crops and their samples' indices; returns encoded bytes and decoded pixels."""
        num_bytes = num_pixels = 0
        for first in range(0, len(job.draws), _CHUNK):
            wanted = job.draws[first : first + _CHUNK]
            decoded = [self._decode(int(draw), bad_samples) for draw in wanted]
            draws = np.array([one.draw for one in decoded])
            used[first : first + _CHUNK] = indices_of(draws)
            sizes = np.array([one.pixels.shape[:2] for one in decoded])
            views = self._views.boxes(job.epoch, draws, sizes, job.resolution)
            for slot, one in enumerate(decoded):
                crops = places.crops(buffer, first + slot)
                for crop, chosen in zip(crops, views, strict=True):
                    box, flip, bicubic = (values[slot] for values in chosen)
                    crop[...] = resized_crop(self._config.crop, one.pixels, box, flip, len(crop), bool(bicubic))
                if self._config.per_image is not None:
                    apply(self._config.per_image, crops)
            num_bytes += sum(one.num_bytes for one in decoded)
            num_pixels += int(sizes.prod(axis=1).sum())
        return num_bytes, num_pixels

    def _decode(self, draw: int, bad_samples: list[str]) -> _Decoded:
        def make(candidate: int) -> _Decoded:
            index = int(indices_of(candidate))
            data = self._source.read(index)
            return _Decoded(candidate, len(data), decode_rgb(data, self._source.name(index), index))

        draws = candidates(draw, len(self._source), self._drawable)
        return retry_next(make, draws, self._config.on_bad, bad_samples)


def _labels_of(source: Source) -> tuple[tuple[str, ...], int]:
    """The classes and a checksum of the labels."""
    return tuple(source.classes), zlib.crc32(np.ascontiguousarray(source.labels))


def resized_crop(
    crop: Crop, pixels: np.ndarray, yxhw: np.ndarray, flip: bool, resolution: int, bicubic: bool
) -> np.ndarray:
    """uint8 (r, r, 3): the box of an image, uint8 HWC, by `train_crop` or `eval_crop`, then the flip."""
    cut = train_crop if isinstance(crop, TrainCrop) else eval_crop
    image = cut(pixels, yxhw, resolution, bicubic)
    return image[:, ::-1] if flip else image


def train_crop(pixels: np.ndarray, yxhw: np.ndarray, resolution: int, bicubic: bool = False) -> np.ndarray:
    """Cuts the integer box out, then resizes it to uint8 (r, r, 3). Pixels outside the box are not used."""
    y, x, h, w = (int(v) for v in yxhw)
    crop = Image.fromarray(pixels[y : y + h, x : x + w])
    return np.asarray(crop.resize((resolution, resolution), _FILTERS[bicubic]))


def eval_crop(pixels: np.ndarray, yxhw: np.ndarray, resolution: int, bicubic: bool = False) -> np.ndarray:
    """Resizes a fractional box to uint8 (r, r, 3).

    The filter uses pixels outside the box, as when the whole image is resized.
    """
    height, width = pixels.shape[:2]
    y, x, h, w = (float(v) for v in yxhw)
    # y + h can exceed the height by a rounding error of 1e-13, which Pillow refuses.
    corners = (max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height))
    return np.asarray(Image.fromarray(pixels).resize((resolution, resolution), _FILTERS[bicubic], box=corners))


class TorchLoader(BaseLoader):
    """Pillow in worker processes of one thread each.

    Workers come from a fork server. Forked from this process they would start in 0.15 s, but with other engines' memory
    and without their threads: after DALI was used, such workers hung or crashed in tests and within 60 starts of a
    stress script. 60 of 60 starts from a fork server succeeded. The server imports torch once per process (3 to 7 s on
    2 cores); then a worker starts in 0.1 s.
    """

    shares_boxes = True
    decodes_on_host = makes_views = True

    def __init__(self, config: LoaderConfig) -> None:
        source = open_stored(config.path) if config.source is None else config.source
        super().__init__(config, source.classes, len(source))
        self._views = Views(config.crop, config.views, config.seed)
        self._jobs: list[_Job] = []  # of the next iteration
        options = {}
        if config.num_workers:
            _check_pickles(config.per_image)
            context = fork_server()
            options = {"multiprocessing_context": context, "persistent_workers": True, "prefetch_factor": _PREFETCH}
            options["worker_init_fn"] = _start_worker
        self._engine = DataLoader(
            _Batches(source, config),
            sampler=self._jobs,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=config.num_workers,
            generator=torch.Generator(),  # unused, but without it DataLoader draws from torch's global generator
            pin_memory=torch.device(config.device).type == "cuda",
            **options,
        )

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        self._jobs[:] = [_Job(epoch, resolution, draws) for draws in self._draws(epoch, start)]
        if self.config.num_workers:
            check_shared_memory(self._views.places(resolution, self.config.batch_size).size)
        remedy = "lower num_workers or batch_size"
        for result in received(self._engine, self.config.path, remedy):
            if result.error is not None:
                raise result.error
            batch = Batch(result.images, result.labels, result.indices)
            yield Delivery(batch, result.bytes_read, result.pixels_decoded, result.bad_samples)

    def _release(self) -> None:
        end_workers(self._engine)


def _check_pickles(function: object) -> None:
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"per_image={function!r} cannot be sent to worker processes ({error}); "
            "define it with def at the top of a module, or set --num-workers 0"
        ) from error


def _start_worker(_number: int) -> None:
    tune_allocator()  # a fork of a server has not its parent's
    start_data_worker()
    # A worker's thread writes batches into shared memory. Its errors would only be printed, and the parent would wait.
    Queue._on_queue_feeder_error = _send_error


def _send_error(queue: Queue, error: Exception, unsent: tuple[int, Any]) -> None:
    """Sends an error, which needs no shared memory, in place of a batch."""
    number, _ = unsent
    none = torch.empty(0)
    full = shared_memory_error(f"a worker could not hand over its batch through {SHARED_MEMORY} ({error})")
    queue.put((number, _Result(none, none, none, 0, 0, [], full)))


def _unchanged(result: _Result) -> _Result:
    return result

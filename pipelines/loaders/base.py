"""Shared by all engines: epoch, position, resolution, counters, saving and resuming, replacing bad samples."""

from __future__ import annotations

import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any, Self, TypeVar

import numpy as np
import torch

from fixres.pipelines.loaders.delivery import Delivery, Part, SideStream, hold_until_used, send_ahead
from fixres.pipelines.loaders.views import Views
from fixres.pipelines.sampling.draws import candidates, drawable, epoch_size, indices_of, subset_checksum
from fixres.pipelines.sampling.order import batches, num_batches
from fixres.pipelines.sampling.philox import MAX_EPOCH
from fixres.pipelines.spec import BadSampleError, Batch, Counters, InputError, LoaderConfig, check_resolution

T = TypeVar("T")


class BaseLoader(ABC):
    """Implements `fixres.pipelines.spec.Loader` except for making batches; an engine implements `_deliveries`."""

    shares_boxes = False
    makes_views = False
    """Whether it makes the crops of `LoaderConfig.views` and calls `per_image`."""
    shares_order = True
    """Whether an epoch has the samples of `sampling.draws`, and so those of `LoaderConfig.indices` and `weights`."""
    decodes_on_host = False
    """Whether `_deliveries` yields batches in host memory, which this class copies to the device."""

    def __init__(self, config: LoaderConfig, classes: tuple[str, ...], num_stored: int) -> None:
        self.config = config
        self.classes = tuple(classes)
        self.num_stored = num_stored
        """Samples of the whole data set."""
        self.num_samples = epoch_size(config, num_stored)
        self.batch_size = config.batch_size
        self.resolution = config.resolution
        self.counters = Counters()
        self.epoch = 0
        self._num_batches = num_batches(config, self.num_samples)
        self._drawable, self._subset = drawable(config), subset_checksum(config)
        self._position = 0  # samples over all ranks that this epoch has delivered
        self._resume_at: int | None = None  # set by load_state_dict until the next iteration
        # A weak reference, so that an abandoned iteration is closed. Its threads keep the loader alive while they run.
        self._running: weakref.ref[Generator[Delivery, None, None]] | None = None
        self._closed, self._process = False, os.getpid()
        on_gpu = torch.device(config.device).type == "cuda"
        self._sender = SideStream(config.device) if on_gpu and self.decodes_on_host else None

    @abstractmethod
    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        """Yields this rank's batches of `epoch` at `resolution`, from global position `start` on.

        After the generator is closed, the engine must be ready for another call.
        """

    def _release(self) -> None:  # noqa: B027 (engines without workers have nothing to release)
        """Stops workers and frees buffers; called once."""

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        if self._closed:
            raise RuntimeError("this loader is closed; open another one")
        self._check_process()
        self._stop_running()
        start, self._resume_at = self._resume_at or 0, None
        self._position = start
        # The settings are passed now, because a generator starts at its first batch, when they may have changed.
        deliveries = self._on_device(self._deliveries(start, self.epoch, self.resolution))
        self._running = weakref.ref(deliveries)
        return self._count(deliveries, self._running, self.epoch)

    def _check_process(self) -> None:
        if os.getpid() != self._process:  # its threads are not in this process, so a batch would never come
            raise RuntimeError("this loader was opened in another process, before a fork; open one here")

    def _on_device(self, deliveries: Generator[Delivery, None, None]) -> Generator[Delivery, None, None]:
        if self._sender is not None:
            return send_ahead(deliveries, self._sender)
        if torch.device(self.config.device).type == "cuda":
            return hold_until_used(deliveries, lambda: torch.cuda.current_stream(self.config.device).record_event())
        return deliveries

    def index_batches(self, epoch: int | None = None) -> Iterator[np.ndarray]:
        return map(indices_of, self._draws(self.epoch if epoch is None else epoch, 0))

    def _draws(self, epoch: int, start: int) -> Iterator[np.ndarray]:
        """This rank's batches of draws (`sampling.draws.indices_of`) from global position `start` on."""
        return batches(self.config, self.num_stored, epoch, start)

    def _candidates(self, draw: int) -> Iterator[int]:
        """For `retry_next`."""
        return candidates(draw, self.num_stored, self._drawable)

    def _count(
        self,
        deliveries: Generator[Delivery, None, None],
        mine: weakref.ref[Generator[Delivery, None, None]],
        epoch: int,
    ) -> Generator[Batch, None, None]:
        """Yields batches and updates the position and the counters."""
        step = self.config.batch_size * self.config.world_size
        try:
            while True:
                self._check_process()
                if self._closed:  # returning would look like the end of the epoch
                    raise RuntimeError("this loader was closed while its epoch ran")
                if self._running is not mine:
                    raise RuntimeError("a later iteration or load_state_dict ended this one; open another loader")
                began = time.perf_counter()
                delivery = next(deliveries, None)
                self.counters.wait_seconds += time.perf_counter() - began
                if delivery is None:
                    return
                if self.epoch == epoch:  # else set_epoch has reset the position for the next epoch
                    self._position = min(self._position + step, self.num_samples)
                self._add(delivery)
                yield delivery.batch
        finally:
            self._close(deliveries)

    def _close(self, deliveries: Generator[Delivery, None, None]) -> None:
        """Ends an engine's iteration; in a fork, workers and locks are those of the parent, so nothing is done."""
        if os.getpid() == self._process:
            deliveries.close()

    def _add(self, delivery: Delivery) -> None:
        counters = self.counters
        counters.num_images += len(delivery.batch.labels)
        counters.bytes_read = _sum(counters.bytes_read, delivery.bytes_read)
        counters.pixels_decoded = _sum(counters.pixels_decoded, delivery.pixels_decoded)
        counters.num_bad_samples += len(delivery.bad_samples)
        counters.bad_samples += delivery.bad_samples

    def _stop_running(self) -> None:
        deliveries = None if self._running is None else self._running()
        if deliveries is not None:
            if deliveries.gi_running:
                raise RuntimeError("another thread waits for this loader's next batch; end its iteration first")
            self._close(deliveries)
        self._running = None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration. The epoch of a loaded state keeps its position."""
        if not 0 <= epoch <= MAX_EPOCH:
            raise InputError(f"epoch={epoch} must be in [0, {MAX_EPOCH}]")
        if epoch != self.epoch:
            self.epoch, self._position, self._resume_at = int(epoch), 0, None

    def set_resolution(self, resolution: int) -> None:
        self.resolution = check_resolution(resolution)

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the samples delivered in it, and the settings that must be the same to resume."""
        return {"epoch": self.epoch, "position": self._position} | self._identity()

    def _identity(self) -> dict[str, Any]:
        identity = {"num_samples": self.num_samples, "seed": self.config.seed, "shuffle": self.config.shuffle}
        return identity | {"subset": self._subset}  # a checksum of indices and weights

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, here in self._identity().items():
            if state.get(name) != here:
                raise InputError(
                    f"{self.config.path}: the saved data position has {name}={state.get(name)}, this loader {here}; "
                    "resume with the same data and settings, or start again"
                )
        epoch, position = state.get("epoch"), state.get("position")
        if not (isinstance(epoch, int) and 0 <= epoch <= MAX_EPOCH):
            raise InputError(f"the saved data position has epoch={epoch!r}; it must be an integer >= 0")
        if not (isinstance(position, int) and 0 <= position <= self.num_samples):
            raise InputError(f"the saved data position={position!r} is not in [0, {self.num_samples}]")
        self._stop_running()
        self.epoch, self._position, self._resume_at = epoch, position, position

    def close(self) -> None:
        if not self._closed:
            self._stop_running()
            self._closed = True
            if os.getpid() == self._process:  # a fork must not end the parent's workers
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_device(config: LoaderConfig) -> None:
    """Raises InputError unless the config's device exists."""
    try:
        device = torch.device(config.device)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device={config.device!r} does not exist; use cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={config.device!r}, but torch sees no GPU; use device cpu or install a CUDA driver")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={config.device!r}, but there are {torch.cuda.device_count()} GPUs, numbered from 0")


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


def empty_batch(resolution: int, device: str, views: Views | None = None) -> Batch:
    """The batch of a rank that gets no sample of a short last step."""
    images: Part = torch.empty((0, resolution, resolution, 3), dtype=torch.uint8, device=device)
    if views is not None:
        images = views.images(images.view(-1), resolution, 0)
    numbers = torch.empty(0, dtype=torch.int64, device=device)
    return Batch(images, numbers, numbers.clone())


MAX_BAD_IN_A_ROW = 100  # after so many bad samples in a row the data set is considered damaged


def retry_next(make: Callable[[int], T], draws: Iterable[int], on_bad: str, bad_samples: list[str]) -> T:
    """Returns `make` of the first draw; if that sample is bad and `on_bad` is "replace", of the next good one.

    Args:
        make: raises BadSampleError for a bad sample.
        draws: from `sampling.draws.candidates`.
        on_bad: "stop" or "replace".
        bad_samples: gets a line for each skipped sample.
    """
    errors: list[BadSampleError] = []
    for draw in islice(draws, MAX_BAD_IN_A_ROW):
        try:
            return make(draw)
        except BadSampleError as error:
            if on_bad == "stop":
                raise
            bad_samples.append(str(error))
            errors.append(error)
    line = f"{len(errors)} samples in a row are bad, so none can replace them; the last: {errors[-1]}"
    raise BadSampleError(line, errors[0].index)

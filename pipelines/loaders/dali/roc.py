"""Engine `roc-dali`: crops cut out of RoC files at the byte level, decoded and resized by DALI.

Threads cut the crops of the next batches into small JPEG files. DALI decodes them on the GPU or the CPU, slices the box
out, resizes and flips. See docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from nvidia.dali import fn, types

from fixres.pipelines.loaders.base import retry_next
from fixres.pipelines.loaders.dali import common as dali
from fixres.pipelines.loaders.dali.cutter import Cuts, Cutter
from fixres.pipelines.loaders.dali.feed import FedLoader, Feed, Job, external_sources
from fixres.pipelines.loaders.roc_base import RocBase
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.layout import NUM_COUNTS, OK
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import InputError, LoaderConfig, TrainCrop


@dataclass
class _Job(Job):
    """Adds the costs."""

    counts: np.ndarray
    """int64 (B, 3), as `cut_batch.plan_cuts` fills it."""


class RocDALILoader(FedLoader, RocBase):
    """Cuts by our kernels, pixels by DALI. The output shares DALI's memory (by DLPack)."""

    def __init__(self, config: LoaderConfig) -> None:
        super().__init__(config)
        if "roc" not in self._reader.field_names:
            RocBase._release(self)
            raise InputError(
                f"{config.path} has no RoC records, so engine='roc-dali' cannot cut it; "
                "convert the data with --format roc, or choose --engine roc"
            )
        self._inside = isinstance(config.crop, TrainCrop)
        reaches_far = config.crop.interpolation == "bicubic"
        self._cutter = Cutter(self._reader.data, self._inside, config.zoom, self._pool, reaches_far)
        self._start_pipeline(config.dali.prefetch, config.dali.batches_ahead if self._pool else 0)

    def _graph(self) -> tuple:
        encoded, *numbers = input_nodes(self._feed, self._inside)
        return (resized_node(decoded_node(encoded, self.config), numbers, self._inside),)

    def _jobs(self, wanted: list[np.ndarray], epoch: int, resolution: int) -> Iterator[_Job]:
        """Cuts batches one after the other; the next one's bytes are announced before."""
        drawn = self._draw(iter(wanted), epoch, resolution)
        upcoming = next(drawn, None)
        while upcoming is not None:
            current, upcoming = upcoming, next(drawn, None)
            if upcoming is not None:
                self._read_ahead.announce(self._table[indices_of(upcoming[0])])
            yield self._job(*current, epoch, resolution)

    def _job(self, wanted: np.ndarray, boxes: Boxes, epoch: int, resolution: int) -> _Job:
        draws, bad_samples = np.array(wanted, np.int64), []
        cuts = self._cutter.cut(self._table[indices_of(draws)], boxes.yxhw, resolution)
        bad = cuts.codes != OK
        if self._known_bad:
            bad |= [self._bad_key(draw, epoch, resolution) in self._known_bad for draw in draws.tolist()]
        if bad.any():
            for slot in np.flatnonzero(bad):
                draws[slot] = self._replacement(int(draws[slot]), epoch, resolution, bad_samples)
            boxes = self._boxes(draws, epoch, resolution)
            cuts = self._cutter.cut(self._table[indices_of(draws)], boxes.yxhw, resolution)
            assert (cuts.codes == OK).all(), "a sample that was cut once can be cut again"
        numbers = graph_numbers(cuts, boxes.flip, boxes.bicubic, resolution, self._inside)
        return _Job(cuts.encoded, numbers, draws, wanted, epoch, resolution, bad_samples, cuts.counts)

    def _replacement(self, wanted: int, epoch: int, resolution: int, bad_samples: list[str]) -> int:
        """Stops at a bad sample, or returns the draw of the next good one, depending on `on_bad`."""

        def make(draw: int) -> int:
            self._check_known_bad(draw, epoch, resolution)
            one = np.array([draw])
            cuts = self._cutter.cut(self._table[indices_of(one)], self._boxes(one, epoch, resolution).yxhw, resolution)
            if cuts.codes[0] != OK:
                raise self._bad_sample(int(indices_of(draw)), cuts.codes[0])
            return draw

        return retry_next(make, self._candidates(wanted), self.config.on_bad, bad_samples)

    def _costs(self, job: _Job, outputs: tuple) -> tuple[int, int]:  # noqa: ARG002
        return self._note(indices_of(job.draws), job.counts)

    def _find_bad(self, failed: list[_Job], error: RuntimeError) -> dict[int, str]:
        """DALI does not name the sample. So our decoder is tried, then DALI with one image at a time."""
        for find in (self._not_decoded_by_us, self._not_decoded_by_dali):
            found = {draw: line for job in failed for draw, line in find(job).items()}
            if found:
                return found
        reason = dali.error_reason(error)
        raise InputError(f"{self.config.path}: DALI failed, but no image is bad: {reason}") from error

    def _not_decoded_by_us(self, job: _Job) -> dict[int, str]:
        num, r, indices = len(job.draws), job.resolution, indices_of(job.draws)
        codes, counts = np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64)
        boxes = self._boxes(job.draws, job.epoch, r)
        out = np.empty((num, r, r, 3), np.uint8)
        table, zoom = self._table[indices], self.config.zoom
        decode_samples(self._reader.data, table, *boxes, self._inside, zoom, out, codes, counts)
        return {int(job.draws[k]): str(self._bad_sample(indices[k], codes[k])) for k in np.flatnonzero(codes)}

    def _not_decoded_by_dali(self, job: _Job) -> dict[int, str]:
        remedy = "our decoder can; choose --engine roc, or convert the data again"
        reasons = [dali.decoding_error(encoded, self.config) for encoded in job.encoded]
        return {
            int(draw): f"{self._reader.name(int(indices_of(draw)))}: DALI cannot decode it ({reason}), {remedy}"
            for draw, reason in zip(job.draws, reasons, strict=True)
            if reason is not None
        }

    @property
    def _labels(self) -> np.ndarray:
        return self._reader.labels


def graph_numbers(
    cuts: Cuts, flips: np.ndarray, bicubic: np.ndarray, resolution: int, inside: bool
) -> tuple[np.ndarray, ...]:
    """The graph's inputs apart from the encoded images: arrays of shape (B, 2), at last one of shape (B,).

    For training crops these are start and shape of the slice in pixels of the cut, then for all crops the output's
    height and width, the box to resize as two corners, and the filter. A flip swaps the corners' columns: DALI flips a
    box that ends before it begins.
    """
    yxhw, before = cuts.boxes, ()
    if inside:
        before = (cuts.used[:, :2].astype(np.int32), cuts.used[:, 2:].astype(np.int32))
        yxhw = yxhw - np.pad(cuts.used[:, :2], ((0, 0), (0, 2)))
    first, last = yxhw[:, :2].astype(np.float32), (yxhw[:, :2] + yxhw[:, 2:]).astype(np.float32)
    first[flips, 1], last[flips, 1] = last[flips, 1], first[flips, 1]
    return (*before, np.full((len(flips), 2), resolution, np.float32), first, last, dali.filter_numbers(bicubic))


def input_nodes(feed: Feed, inside: bool) -> list[Any]:
    """Nodes of the encoded images and of the arrays of `graph_numbers`."""
    dtypes = [types.INT32] * (2 if inside else 0) + [types.FLOAT] * 3 + [types.INT32]
    return external_sources(feed, dtypes, [1] * (len(dtypes) - 1) + [0])


def decoded_node(encoded: Any, config: LoaderConfig) -> Any:
    """Node of the cuts' pixels, uint8 HWC RGB."""
    return fn.decoders.image(encoded, **dali.decoder_arguments(config), **dali.gpu_arguments(config))


def resized_node(pixels: Any, numbers: list[Any], inside: bool) -> Any:
    """Node of the finished crops.

    Like Pillow's `resize(box=)`, DALI's resize uses pixels outside the box. That is right for evaluation, where the
    resized image is cropped. RandomResizedCrop crops before it resizes, so for training the box is sliced out first.
    """
    if inside:
        start, shape, *numbers = numbers
        pixels = fn.slice(pixels, start=start, shape=shape, axis_names="HW")
    size, first, last, filter = numbers
    filter = dali.filter_node(filter)
    return fn.resize(pixels, size=size, roi_start=first, roi_end=last, interp_type=filter, antialias=True)

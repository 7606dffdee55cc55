"""Engine `dali-slice`: DALI's operators with our order, boxes and flips, over any source.

A thread reads encoded images and computes their boxes. DALI decodes the box (fused, so that rows above it are only
entropy-decoded), resizes and flips, on the CPU or the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from nvidia.dali import fn, types

from fixres.pipelines.images.codec import image_size
from fixres.pipelines.loaders.base import retry_next
from fixres.pipelines.loaders.dali import common as dali
from fixres.pipelines.loaders.dali.feed import FedLoader, Job, external_sources
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import LoaderConfig, TrainCrop

_BATCHES_AHEAD = 2


class DALISliceLoader(FedLoader):
    """Fused decode-and-crop with our boxes. The output shares DALI's memory (by DLPack)."""

    def __init__(self, config: LoaderConfig) -> None:
        self._source = open_stored(config.path)
        super().__init__(config, self._source.classes, len(self._source))
        self._sizes = getattr(self._source, "sizes", None)  # the table of a .beton file; else headers are read
        self._start_pipeline(dali.PREFETCH, _BATCHES_AHEAD)

    def _graph(self) -> tuple:
        inside = isinstance(self.config.crop, TrainCrop)
        corner_type = types.INT32 if inside else types.FLOAT
        dtypes, ndims = [corner_type, corner_type, types.FLOAT, types.INT32, types.INT32], [1, 1, 1, 0, 0]
        encoded, corner, extent, size, flip, filter = external_sources(self._feed, dtypes, ndims)
        resize = {"size": size, "interp_type": dali.filter_node(filter), "antialias": True}
        arguments = dali.decoder_arguments(self.config, part=inside)
        if inside:
            pixels = fn.decoders.image_slice(encoded, start=corner, shape=extent, axis_names="HW", **arguments)
            images = fn.resize(pixels, **resize)
        else:
            pixels = fn.decoders.image(encoded, **arguments)
            images = fn.resize(pixels, roi_start=corner, roi_end=extent, **resize)
        return fn.flip(images, horizontal=flip), pixels.shape()

    def _jobs(self, wanted: list[np.ndarray], epoch: int, resolution: int) -> Iterator[Job]:
        return (self._job(indices, epoch, resolution) for indices in wanted)

    def _job(self, wanted: np.ndarray, epoch: int, resolution: int) -> Job:
        bad_samples: list[str] = []
        config = self.config
        read = [retry_next(self._read, self._candidates(int(draw)), config.on_bad, bad_samples) for draw in wanted]
        draws = np.array([draw for draw, _, _ in read], np.int64)
        sizes = np.array([size for _, _, size in read])
        chosen = crop_boxes(config.crop, config.seed, epoch, draws, sizes, resolution)
        first, second = chosen.yxhw[:, :2], chosen.yxhw[:, 2:]
        if isinstance(config.crop, TrainCrop):
            corners = first.astype(np.int32), second.astype(np.int32)
        else:
            corners = first.astype(np.float32), (first + second).astype(np.float32)
        outputs = np.full((len(read), 2), resolution, np.float32)
        encoded = [np.frombuffer(data, np.uint8) for _, data, _ in read]
        numbers = (*corners, outputs, chosen.flip.astype(np.int32), dali.filter_numbers(chosen.bicubic))
        return Job(encoded, numbers, draws, wanted, epoch, resolution, bad_samples)

    def _read(self, draw: int) -> tuple[int, bytes, tuple[int, int]]:
        """Draw, encoded image, (height, width)."""
        self._check_known_bad(draw, 0, 0)
        index = int(indices_of(draw))
        data = self._source.read(index)
        if self._sizes is not None:
            return draw, data, (int(self._sizes[index, 0]), int(self._sizes[index, 1]))
        return draw, data, image_size(data, self._source.name(index), index)

    def _costs(self, job: Job, outputs: tuple) -> tuple[int, int]:
        _, shapes = outputs
        return sum(map(len, job.encoded)), int(dali.to_numpy(shapes)[:, :2].prod(axis=1).sum())

    def _find_bad(self, failed: list[Job], error: RuntimeError) -> dict[int, str]:
        return dali.find_bad(self._source, (i for job in failed for i in indices_of(job.draws)), self.config, error)

    def _bad_key(self, draw: int, epoch: int, resolution: int) -> tuple[int, int, int]:  # noqa: ARG002
        return 0, 0, int(indices_of(draw))  # a whole image is bad, whatever the crop

    @property
    def _labels(self) -> np.ndarray:
        return np.asarray(self._source.labels, np.int64)

"""Engine `dali`: the pipeline of NVIDIA's ImageNet examples, over image folders or webdataset shards.

Training crops: reader, fused decode and random crop, resize, flip. Test crops: decode, resize the short side, center
crop. DALI draws crops and flips: a run repeats exactly, but its crops are not those of `sampling.crops`.

Over folders the order is that of `sampling.order`, and a resumed epoch continues with the remaining samples
in other crops. Over shards the order is DALI's (shards in our order, samples through its buffer), and a resumed epoch
reads and skips the batches that were delivered before, so its batches are exactly the remaining ones.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali import math as dali_math

from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.loaders.base import BaseLoader, empty_batch
from fixres.pipelines.loaders.dali import common as dali
from fixres.pipelines.loaders.dali.readers import Reading, neighbors, plan
from fixres.pipelines.loaders.delivery import Delivery, to_device
from fixres.pipelines.sampling.crops import resized_short_side
from fixres.pipelines.sampling.philox import STREAM_DALI_PIPELINE
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import BadSampleError, Batch, LoaderConfig, TrainCrop

_NUM_ATTEMPTS = 100  # as in NVIDIA's examples; torchvision tries 10 boxes


class DALILoader(BaseLoader):
    """DALI's readers and operators, fused decode-and-crop for training.

    DALI's readers cannot seek or change their order, so each epoch that is shuffled or resumed needs a new pipeline.
    That takes 0.05 s, and 3 s for 1.28 million files. The resolution is an input of each run and needs no rebuild.
    """

    shares_order = False

    def __init__(self, config: LoaderConfig) -> None:
        self._source = open_stored(config.path)
        super().__init__(config, self._source.classes, len(self._source))
        self._replacements: dict[int, int] = {}
        self._runs_left = 0  # runs that DALI may still start in this epoch
        self._running_resolution = config.resolution
        self._kept: Pipeline | None = None  # at the start of an epoch in stored order, for the next epoch
        plan(self._source, config, 0, 0, {})  # reports unusable shards now

    def _graph(self, reading: Reading) -> tuple:
        crop = self.config.crop
        encoded, number = reading.nodes()
        pixels, images = self._train(encoded) if isinstance(crop, TrainCrop) else self._test(encoded)
        if crop.hflip > 0:
            images = fn.flip(images, horizontal=fn.random.coin_flip(probability=crop.hflip))
        return images, number, pixels.shape(), encoded.shape()

    def _train(self, encoded: Any) -> tuple[Any, Any]:
        """Nodes of the decoded part and of the resized image."""
        (side,) = fn.external_source(source=self._next_sides, num_outputs=1, batch=True, dtype=types.INT64, ndim=0)
        pixels = fn.decoders.image_random_crop(
            encoded,
            random_area=list(self.config.crop.scale),
            random_aspect_ratio=list(self.config.crop.ratio),
            num_attempts=_NUM_ATTEMPTS,
            **dali.decoder_arguments(self.config, part=True),
        )
        side = fn.cast(side, dtype=types.FLOAT)
        return pixels, fn.resize(pixels, resize_x=side, resize_y=side, interp_type=self._filter(), antialias=True)

    def _test(self, encoded: Any) -> tuple[Any, Any]:
        """Nodes of the decoded image and of its center.

        `resize_shorter` rounds the long side, but torchvision rounds it down; `fn.crop` rounds halves up, but
        torchvision rounds them to even. Either shifts the image by a pixel or a half (12 gray levels in the mean at
        96 px). So both are computed here as in `fixres.pipelines.sampling.crops.center_boxes`.
        """
        side, short = fn.external_source(source=self._next_sides, num_outputs=2, batch=True, dtype=types.INT64, ndim=0)
        pixels = fn.decoders.image(encoded, **dali.decoder_arguments(self.config))
        stored = fn.peek_image_shape(encoded, adjust_orientation=False, dtype=types.INT64)
        height, width = stored[0], stored[1]
        sides = [short * full // dali_math.min(height, width) for full in (height, width)]
        size = fn.cast(fn.stack(*sides), dtype=types.FLOAT)
        resized = fn.resize(pixels, size=size, interp_type=self._filter(), antialias=True)
        left = [full - side for full in sides]
        start = fn.cast(fn.stack(*[(over + (over // 2) % 2) // 2 for over in left]), dtype=types.INT32)
        shape = fn.cast(fn.stack(side, side), dtype=types.INT32)
        return pixels, fn.slice(resized, start=start, shape=shape, axis_names="HW")

    def _filter(self) -> Any:
        """Argument `interp_type` of `fn.resize`; `dali.random_seed` seeds the draw of one for each image."""
        linear, cubic = types.INTERP_LINEAR, types.INTERP_CUBIC
        if self.config.crop.interpolation == "random":
            number = int(linear) + (int(cubic) - int(linear)) * fn.random.coin_flip()
            return dali.filter_node(fn.cast(number, dtype=types.INT32))
        return cubic if self.config.crop.interpolation == "bicubic" else linear

    def _next_sides(self) -> tuple[np.ndarray, ...]:
        """Inputs of one run: int64 (B,) output side and, for test crops, int64 (B,) short side before cropping."""
        if self._runs_left == 0:
            raise StopIteration
        self._runs_left -= 1
        crop, r, num = self.config.crop, self._running_resolution, self.config.batch_size
        side = np.full(num, r, np.int64)
        if isinstance(crop, TrainCrop):
            return (side,)
        return side, np.full(num, resized_short_side(crop, r), np.int64)

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        self._running_resolution = resolution
        handed_out, bad_samples = 0, []
        while True:
            reading = plan(self._source, self.config, epoch, start, self._replacements)
            run, first = 0, max(handed_out, reading.num_skipped)
            try:
                for outputs in self._outputs(reading, start, epoch) if first < reading.num_runs else ():
                    run += 1
                    if run > first:
                        handed_out = run
                        delivery, bad_samples = self._delivery(outputs, reading, run - 1, bad_samples), []
                        yield delivery
                break
            except RuntimeError as error:
                bad_samples = bad_samples + self._after_failure(error, reading.suspects(run))
        for _ in range(reading.num_empty):
            yield Delivery(empty_batch(resolution, self.config.device), 0, 0, [])

    def _outputs(self, reading: Reading, start: int, epoch: int) -> Iterator[tuple]:
        """Runs an epoch; keeps the pipeline for the next epoch if its order is the same."""
        same_again = start == 0 and not self.config.shuffle
        kept, self._kept = self._kept, None
        if not (kept and same_again):
            seed = dali.random_seed(self.config, STREAM_DALI_PIPELINE, epoch)
            kept = dali.build_pipeline(self.config, lambda: self._graph(reading), seed)
        self._runs_left = reading.num_runs
        yield from dali.run_to_end(kept)
        self._kept = kept if same_again else None

    def _delivery(self, outputs: tuple, reading: Reading, run: int, bad_samples: list[str]) -> Delivery:
        images, number, shapes, encoded_shapes = outputs
        indices = reading.indices(dali.to_numpy(number), run)
        num, device = len(indices), self.config.device
        labels = torch.from_numpy(np.asarray(self._source.labels)[indices].astype(np.int64))
        numbers = (to_device(part, device) for part in (labels, torch.from_numpy(indices)))
        batch = Batch(dali.to_torch(images, self.config)[:num], *numbers)
        pixels = int(dali.to_numpy(shapes)[:num, :2].prod(axis=1).sum())
        return Delivery(batch, int(dali.to_numpy(encoded_shapes)[:num].sum()), pixels, bad_samples)

    def _after_failure(self, error: RuntimeError, suspects: np.ndarray) -> list[str]:
        """Finds the bad samples. Depending on `on_bad` it stops, or chooses replacements; returns a line for each."""
        self._kept = None
        found = dali.find_bad(self._source, suspects, self.config, error)
        if self.config.on_bad == "stop":
            dali.raise_bad(found)
        self._replacements |= {index: self._replacement(index, found) for index in found}
        return list(found.values())

    def _replacement(self, index: int, found: dict[int, str]) -> int:
        for candidate in neighbors(self._source, index):
            known_bad = candidate in found or candidate in self._replacements
            if not known_bad and dali.pillow_error(self._source, candidate) is None:
                return candidate
        raise BadSampleError(f"{found[index]}; no sample near it can replace it", index)

    def _release(self) -> None:
        self._kept = None  # ends DALI's threads and frees its memory on the device

    def _identity(self) -> dict[str, Any]:
        identity = super()._identity()
        if isinstance(self._source, TarSource):  # DALI's order over shards depends on these, too
            identity |= {"batch_size": self.config.batch_size, "world_size": self.config.world_size}
        return identity

"""Crops of untouched JPEG files by an index of checkpoints: cost of the scan and of crops, bytes, fidelity.

python -m benchmarks.loaders.crop_index --data PHOTOS [--json FILE]

Microseconds of CPU time for each image, one thread, files in memory, in interleaved rounds; the table shows medians.
Full decoding is libjpeg-turbo's to RGB, by simplejpeg. "index" decodes at full size only, "scaled" takes smaller
inverse transforms at the default min_zoom, "roc" reads RoC records of the same images, at --roc-quality and as large,
with their levels, "whole" decodes all of the file with libjpeg-turbo and makes the same crop. "coarse" is "scaled" with
coarse levels. Crops are those of training, RandomResizedCrop at scale (0.08, 1). Fidelity is that of scaled and coarse
crops to those at full size. Two sets of files are measured: the photographs as they are, and at most --max-side pixels
at --quality.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from timeit import timeit
from typing import Any

import numpy as np
import simplejpeg
from tqdm import tqdm, trange

import fixres.pipelines.crop_index.checkpoints as checkpoints
from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import RepeatedSource
from benchmarks.harness.options import PhotoOptions, RoundOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.loaders.tables import crop_index_table
from fixres.pipelines.crop_index.building import coarse_level
from fixres.pipelines.crop_index.crops import NUM_PLACE_COLUMNS, decode_indexed
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.roc.decoder import turbojpeg
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.decoder.whole_image import decode_whole_images
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.roc.layout import LEVEL_SHIFT, NUM_COUNTS, NUM_SAMPLE_COLUMNS, OK
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, MIN_ZOOM, InputError, TrainCrop

_SEED, _INFINITE = 0, float("inf")


def _joined(fields: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The fields one behind the other, uint8, and where each begins and its size, int64 (n, 2)."""
    sizes = np.array([len(one) for one in fields], np.int64)
    return np.frombuffer(b"".join(fields), np.uint8), np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)


def _places(spans: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Where the kernel finds whole files, int64 (n, 4)."""
    places, header_sizes = np.zeros((len(spans), NUM_PLACE_COLUMNS), np.int64), samples[:, checkpoints.HEADER_SIZE]
    places[:, 0], places[:, 1] = spans[:, 0], spans[:, 0] + header_sizes
    places[:, 3] = spans[:, 1] - header_sizes
    return places


class Files:
    """JPEG files in memory, their index, and RoC records of the same images."""

    def __init__(self, images: list[bytes], roc_quality: int) -> None:
        turbojpeg.load()
        self._handle = turbojpeg.Decompressor()
        data, spans = _joined(images)
        samples, _ = checkpoints.scan_batch(data, spans)
        indexed = np.flatnonzero(samples[:, checkpoints.KIND] == checkpoints.INDEXED)
        if not len(indexed):
            raise InputError("no photograph is a baseline JPEG; give others with --data")
        self.num_not_indexed = len(images) - len(indexed)
        self.images = [images[k] for k in indexed]
        self.data, self.spans = _joined(self.images)
        self.samples, self.words = checkpoints.scan_batch(self.data, self.spans)
        self.sizes = self.samples[:, [checkpoints.HEIGHT, checkpoints.WIDTH]]
        self._places = _places(self.spans, self.samples)
        self._table = np.zeros((len(self.images), NUM_SAMPLE_COLUMNS), np.int64)
        self._table[:, :2], self._table[:, 4:] = self.spans, self.sizes
        self._roc, self._roc_table = self._records(roc_quality)
        self._make_levels()

    def _records(self, quality: int) -> tuple[np.ndarray, np.ndarray]:
        made = RocQuality(quality=quality)
        pixels = (
            decode_rgb(image, "a photograph") for image in tqdm(self.images, desc="RoC", leave=False, disable=None)
        )
        data, spans = _joined([part for image in pixels for part in encode(image, made)])
        return data, np.concatenate([spans.reshape(-1, 4), self.sizes], axis=1)

    def _make_levels(self) -> None:
        """Coarse levels behind the files; images that are too small for one have no bytes."""
        pixels = (decode_rgb(image, "a photograph") for image in self.images)
        levels = [coarse_level(image) for image in tqdm(pixels, desc="coarse levels", leave=False, disable=None)]
        self._both, spans = _joined([*self.images, *levels])
        samples, words = checkpoints.scan_batch(self._both, spans)
        self._both_index = _places(spans, samples), samples, words
        self.has_level = spans[len(self.images) :, 1] > 0
        self.level_bytes = sum(map(len, levels)) + words.nbytes - self.words.nbytes + samples.nbytes // 2

    def scan(self) -> None:
        """Makes the index."""
        checkpoints.scan_batch(self.data, self.spans)

    def decode(self) -> None:
        """Decodes all files to RGB."""
        for image in self.images:
            simplejpeg.decode_jpeg(image, fastdct=False, fastupsample=False)

    def steps(self, resolution: int) -> tuple[dict[str, Callable[[], np.ndarray]], np.ndarray, np.ndarray]:
        """What makes the crops of an epoch, by name, each returning its batch; counts of the last one, filled; bool
        (n,), which of the coarse crops come from the coarse level.
        """
        num = len(self.images)
        drawn = crop_boxes(TrainCrop(), _SEED, 0, np.arange(num), self.sizes, resolution)
        boxes, how = drawn.yxhw.astype(np.float64), (drawn.flip, np.zeros(num, bool), True)
        codes, counts = np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64)

        def step(kernel: Callable[..., None], *given: Any, boxes: np.ndarray = boxes) -> Callable[[], np.ndarray]:
            out = np.empty((num, resolution, resolution, 3), np.uint8)

            def make() -> np.ndarray:
                kernel(*given[:-1], boxes, *how, given[-1], out, codes, counts)
                assert (codes == OK).all()
                return out

            return make

        index = self.data, self._places, self.samples, self.words
        is_coarse = self.has_level & (boxes[:, 2:].min(axis=1) >= 2 * MIN_TRAIN_ZOOM * resolution)
        rows, (places, samples, words) = np.arange(num) + num * is_coarse, self._both_index
        coarse = self._both, places[rows], samples[rows], words, MIN_ZOOM
        made = {
            "coarse": step(decode_indexed, *coarse, boxes=boxes / (1 + is_coarse)[:, None]),
            "index": step(decode_indexed, *index, _INFINITE),
            "roc": step(decode_samples, self._roc, self._roc_table, MIN_TRAIN_ZOOM),
            "whole": step(_decode_whole, self.data, self._table, self._handle.handle),
            "scaled": step(decode_indexed, *index, MIN_ZOOM),
        }
        return made, counts, is_coarse


def _decode_whole(data, table, yxhw, flips, bicubic, inside, handle, out, codes, counts) -> None:
    """One crop of each image; the arguments are those of `decode_samples`, with a handle: many parameters."""
    places = out.reshape(-1), np.zeros(1, np.int64), np.array(out.shape[1:2])
    one = yxhw[:, None], flips[:, None], bicubic[:, None]
    decode_whole_images(data, table, *one, inside, handle, *places, codes, counts)


def _measured(steps: dict[str, Callable[[], Any]], num: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds for each image in each round; the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in trange(rounds + 1, leave=False, disable=None):
        for name, work in steps.items():
            seconds = timeit(work, timer=time.thread_time, number=1)
            if number:
                taken[name].append(seconds / num * 1e6)
    return taken


def _fidelity(full: np.ndarray, scaled: np.ndarray, is_scaled: np.ndarray) -> dict[str, float]:
    """PSNR of the crops that were decoded at a smaller scale, in dB."""
    squared = ((full[is_scaled].astype(np.float64) - scaled[is_scaled]) ** 2).mean(axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / np.maximum(squared, 1e-3))
    if not len(psnr):
        return {"share_scaled": 0.0}
    low = {"psnr_mean": psnr.mean(), "psnr_5th_percentile": np.percentile(psnr, 5), "psnr_worst": psnr.min()}
    return {"share_scaled": float(is_scaled.mean()), **{name: float(value) for name, value in low.items()}}


@dataclass(frozen=True, kw_only=True)
class CropIndexOptions(PhotoOptions, RoundOptions):
    """Options of the benchmark."""

    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the training crops in pixels."""
    roc_quality: int = 90
    """JPEG quality of the RoC records."""
    num_images: int = 500
    """Photographs."""


def _measure_files(name: str, files: Files, options: CropIndexOptions) -> dict[str, Any]:
    num, num_bytes = len(files.images), int(files.spans[:, 1].sum())
    all_of_them = _measured({"scan": files.scan, "decode": files.decode}, num, options.rounds)
    crops = []
    for resolution in options.train_res:
        steps, counts, is_coarse = files.steps(resolution)
        taken = _measured(steps, num, options.rounds)
        full, scaled = steps["index"](), steps["scaled"]()
        crops.append({"res": resolution, "microseconds": taken, **_fidelity(full, scaled, counts[:, LEVEL_SHIFT] > 0)})
        crops[-1]["coarse"] = _fidelity(full, steps["coarse"](), is_coarse)
        crops[-1]["num_different_from_libjpeg"] = int((full != steps["whole"]()).any(axis=(1, 2, 3)).sum())
    size = files.words.nbytes + files.samples.nbytes
    numbers = {"num_images": num, "num_not_indexed": files.num_not_indexed, "bytes_per_image": num_bytes / num}
    shares = {"index_share": size / num_bytes, "coarse_share": files.level_bytes / num_bytes}
    return {"files": name, **numbers, **shares, "microseconds": all_of_them, "crops": crops}


def measure(options: CropIndexOptions) -> dict[str, Any]:
    """Measures both sets of files; returns the record."""
    environment, results = conditions(options.data), []
    with Interruption() as interruption:
        published, stored = (
            RepeatedSource(options.data, options.num_images),
            open_stored(options.files().path("folder")),
        )
        for name, source in (("published", published), ("stored", stored)):
            images = [bytes(source.read(k)) for k in range(min(options.num_images, published.num_different))]
            results.append(_measure_files(name, Files(images, options.roc_quality), options))
    note = f"CPU time of one thread, files in memory; {options.rounds} interleaved rounds."
    return record("crop_index", options.settings(), environment, note, interruption.happened, results=results)


main = command(CropIndexOptions, __doc__, measure, crop_index_table)


if __name__ == "__main__":
    run(main)

"""Which back ends of NVIDIA's JPEG decoder accept our cuts, and how exact and fast they are.

python -m benchmarks.loaders.nvjpeg_backends --data PHOTOS|FILE.beton [--device cuda] [--json FILE]

DALI decodes with nvImageCodec, which silently passes images that one back end refuses to the next back end, down to the
CPU. Here each back end is asked alone: the JPEG engine of A100, H100 and H200, nvJPEG's kernels with Huffman decoding
on the GPU or on the host, and libjpeg-turbo. Four kinds of files show the reason of a refusal: "cut", as engine
roc-dali feeds them, with a restart marker for every MCU and zeros behind the end; "cut, no zeros"; "whole", the stored
image that they come from; "plain", the same pixels encoded by Pillow without restart markers. Pixels are compared with
Pillow's.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import PhotoOptions, RoundOptions
from benchmarks.harness.records import command, record
from benchmarks.loaders.tables import nvjpeg_backends_table
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.images.codec import decode_rgb, encode_jpeg
from fixres.pipelines.loaders.base import check_device
from fixres.pipelines.loaders.dali.cutter import Cutter
from fixres.pipelines.roc.layout import BYTES
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, InputError, LoaderConfig, TrainCrop

_HUFFMAN = "nvjpeg_cuda_decoder:hybrid_huffman_threshold"  # in pixels; the host decodes smaller images
BACKENDS = {
    "JPEG engine": ("HW_GPU_ONLY", ""),
    "GPU alone": ("GPU_ONLY", ""),
    "kernels, Huffman on GPU": ("HYBRID_CPU_GPU", f"{_HUFFMAN}=0"),
    "kernels, Huffman on host": ("HYBRID_CPU_GPU", f"{_HUFFMAN}=1000000000"),
    "CPU": ("CPU_ONLY", ""),
}
"""Name in records: nvImageCodec's kind of back end, and options."""


def made_files(path: Path, num: int, resolution: int) -> dict[str, list[np.ndarray]]:
    """The first `num` images of a RoC file by kind, uint8 (n,) each; cuts are training crops of `resolution` px."""
    reader, index = open_beton(path), np.arange(num)
    if "roc" not in reader.field_names:
        raise InputError(f"{path} has no RoC records; convert the data with --format roc")
    if num > len(reader):
        raise InputError(f"{path} has {len(reader)} images, fewer than num-images={num}; lower it")
    chosen = crop_boxes(TrainCrop(), 0, 0, index, reader.sizes[index], resolution)
    table, cutter = locate_samples(reader)[index], Cutter(reader.data, True, MIN_TRAIN_ZOOM, None)
    cuts = cutter.cut(table, chosen.yxhw.astype(np.float64), resolution)
    whole = [np.frombuffer(reader.image_bytes(int(i)), np.uint8) for i in index]
    plain = [encode_jpeg(decode_rgb(data.data, "whole"), 90) for data in whole]
    return {
        "cut": list(cuts.encoded),
        "cut, no zeros": [row[:size] for row, size in zip(cuts.encoded, cuts.counts[:, BYTES], strict=True)],
        "whole": whole,
        "plain": [np.frombuffer(data, np.uint8) for data in plain],
    }


def decoder(backend: str, device: torch.device) -> Callable[[list[np.ndarray]], list[Any]]:
    """A function that decodes a batch with one back end; it returns None in place of images that are refused."""
    from nvidia import nvimgcodec

    kind, options = BACKENDS[backend]
    made = nvimgcodec.Decoder(
        device_id=(device.index or 0) if device.type == "cuda" else nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY,
        backends=[nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind))],
        options=f":fancy_upsampling=1 {options}".strip(),  # as roc-dali asks of DALI
    )
    # Without an explicit RGB gray images would come out with one channel.
    parameters = nvimgcodec.DecodeParams(
        apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB, sample_format=nvimgcodec.SampleFormat.I_RGB
    )
    return lambda files: made.decode([nvimgcodec.CodeStream(file) for file in files], params=parameters)


def ask(backend: str, files: list[np.ndarray], device: torch.device, rounds: int) -> dict[str, Any]:
    """How many images of a batch a back end accepts, differences in gray levels, images/s."""
    try:
        decode = decoder(backend, device)
        pixels = [None if image is None else np.asarray(image.cpu()) for image in decode(files)]
    except RuntimeError as error:  # the device lacks this back end
        return {"num_accepted": 0, "reason": " ".join(str(error).split())[:200]}
    wanted = [decode_rgb(file.data, "cut") for file in files]
    found = [_difference(one, other) for one, other in zip(pixels, wanted, strict=True) if one is not None]
    if not found:
        return {"num_accepted": 0, "reason": "refuses all"}
    return {
        "num_accepted": len(found),
        "mean_difference": float(np.mean([one.mean() for one in found])),
        "largest_difference": int(max(one.max() for one in found)),
        "images_per_second": len(found) / statistics.median(_seconds(decode, files, device) for _ in range(rounds)),
    }


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other) if one.shape == other.shape else np.array([255])


def _seconds(decode: Callable[[list[np.ndarray]], list[Any]], files: list[np.ndarray], device: torch.device) -> float:
    start = time.perf_counter()
    images = decode(files)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    del images
    return seconds


@dataclass(frozen=True, kw_only=True)
class NvjpegOptions(PhotoOptions, RoundOptions):
    """Options of the benchmark."""

    train_res: int = 160
    """Side in pixels of the training crops for which parts of the images are cut out."""
    num_images: int = 256
    """Images of each kind."""
    rounds: int = 10
    device: str = "cuda"
    """Where images are decoded: cpu or cuda[:n]."""


def measure(options: NvjpegOptions) -> dict[str, Any]:
    """Every back end on every kind of files; returns the record."""
    path, device = options.data, torch.device(options.device)
    if not path.is_file():
        path = options.files().path("roc")
    check_device(LoaderConfig(path, TrainCrop(), options.train_res, 1, device=options.device))
    environment, results = conditions(path), []
    for kind, files in made_files(path, options.num_images, options.train_res).items():
        for backend in BACKENDS if device.type == "cuda" else ("CPU",):
            answer = ask(backend, files, device, options.rounds)
            results.append({"backend": backend, "files": kind, "num": len(files)} | answer)
    note = f"Batches of {options.num_images}; cuts for {options.train_res} px; {options.rounds} rounds, medians."
    return record("nvjpeg_backends", options.settings(), environment, note, False, results=results)


main = command(NvjpegOptions, __doc__, measure, nvjpeg_backends_table)


if __name__ == "__main__":
    run(main)

"""Shared by the DALI engines: building and running pipelines, tensors, finding bad images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types

from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.sampling.philox import random_words
from fixres.pipelines.spec import BadSampleError, InputError, LoaderConfig, Source

PREFETCH = 2  # batches in flight inside DALI


def build_pipeline(
    config: LoaderConfig,
    graph: Callable[[], Sequence[Any]],
    seed: int = 0,
    batch_size: int = 0,
    prefetch: int = PREFETCH,
) -> Pipeline:
    """Builds a pipeline on the config's device, with `prefetch` batches inside DALI.

    The dynamic executor counts references to its buffers, so tensors that share them stay valid.

    Args:
        config: device, number of threads and batch size.
        graph: creates the nodes of the outputs.
        seed: of DALI's random operators.
        batch_size: instead of the config's.
    """
    pipeline = Pipeline(
        batch_size=batch_size or config.batch_size,
        num_threads=max(config.num_workers, 1),
        device_id=device_id(config),
        seed=seed,
        prefetch_queue_depth=prefetch,
        exec_dynamic=True,
    )
    with pipeline:
        pipeline.set_outputs(*graph())
    pipeline.build()
    return pipeline


def device_id(config: LoaderConfig) -> int | None:
    """CUDA device number, None for the CPU."""
    device = torch.device(config.device)
    if device.type == "cpu":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def decoder_arguments(config: LoaderConfig, part: bool = False) -> dict[str, Any]:
    """Arguments of all decoders, for pixels like those of Pillow and libjpeg-turbo.

    Args:
        config: the device.
        part: whether the decoder decodes a part of each image. On a GPU the chroma upsampling is DALI's default then:
            with fancy upsampling nvJPEG before 13.2 is wrong by a pixel at the edges of parts, so nvImageCodec would
            silently decode them on the CPU.
    """
    device = "cpu" if device_id(config) is None else "mixed"
    # Pillow and torchvision ignore the EXIF orientation; libjpeg-turbo upsamples chroma in the fancy way.
    return {
        "device": device,
        "output_type": types.RGB,
        "adjust_orientation": False,
        "jpeg_fancy_upsampling": device == "cpu" or not part,
    }


def gpu_arguments(config: LoaderConfig) -> dict[str, Any]:
    """Additional arguments of a decoder on the GPU; none on the CPU."""
    if device_id(config) is None:
        return {}
    options = config.dali
    return {
        "hw_decoder_load": options.hw_decoder_load,
        "device_memory_padding": options.device_memory_padding,
        "host_memory_padding": options.host_memory_padding,
        "preallocate_height_hint": options.preallocate_side,
        "preallocate_width_hint": options.preallocate_side,
    }


def filter_numbers(bicubic: np.ndarray) -> np.ndarray:
    """int32 (B,): input of a `filter_node` from bool (B,)."""
    return np.where(bicubic, int(types.INTERP_CUBIC), int(types.INTERP_LINEAR)).astype(np.int32)


def filter_node(numbers: Any) -> Any:
    """The argument `interp_type` of `fn.resize`, which is also antialiased, for each crop."""
    return fn.reinterpret(numbers, dtype=types.INTERP_TYPE)


def run_to_end(pipeline: Pipeline) -> Iterator[tuple]:
    """Yields the outputs until the external source raises StopIteration; then the pipeline can be run again."""
    pipeline.reset()
    try:
        while True:
            yield pipeline.run()
    except StopIteration:
        return


def to_torch(outputs: Any, config: LoaderConfig) -> torch.Tensor:
    """One output as a tensor that shares DALI's memory, on the loader's device."""
    tensor = torch.from_dlpack(outputs.as_tensor())
    return tensor if device_id(config) is None else tensor.to(config.device)


def to_numpy(outputs: Any) -> np.ndarray:
    """One small output on the CPU as an array (B, ...)."""
    return np.array(outputs.as_tensor())


def error_reason(error: RuntimeError) -> str:
    """The line of DALI's long error message with the reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    after = lines[lines.index("encountered:") + 1 :] if "encountered:" in lines else lines
    return next((line for line in after if line), "no reason given")


def find_bad(source: Source, indices: Iterable[int], config: LoaderConfig, error: RuntimeError) -> dict[int, str]:
    """Finds the samples that cannot be decoded among those that were in flight when DALI failed.

    For most kinds of damage DALI names neither sample nor file. Pillow is tried first, then DALI with one image at a
    time.

    Returns:
        A line that names the file, by index.

    Raises:
        InputError: all can be decoded; DALI failed for another reason.
    """
    indices = sorted({int(index) for index in indices})
    found = {index: line for index in indices if (line := pillow_error(source, index))}
    found = found or {index: line for index in indices if (line := _dali_error(source, index, config))}
    if not found:
        raise InputError(f"{config.path}: DALI failed, but no image is bad: {error_reason(error)}") from error
    return found


def pillow_error(source: Source, index: int) -> str | None:
    """Why Pillow cannot decode the sample; None if it can."""
    try:
        decode_rgb(source.read(index), source.name(index), index)
    except BadSampleError as error:
        return str(error)
    return None


def _dali_error(source: Source, index: int, config: LoaderConfig) -> str | None:
    refused = decoding_error(np.frombuffer(source.read(index), np.uint8), config)
    if refused is None:
        return None
    return f"{source.name(index)}: DALI cannot decode it ({refused}), Pillow can; replace it or re-encode it"


def decoding_error(encoded: np.ndarray, config: LoaderConfig) -> str | None:
    """Why DALI cannot decode an image file, uint8 (n,); None if it can."""

    def graph() -> tuple:
        node = fn.external_source(source=lambda: [encoded], batch=True, dtype=types.UINT8, ndim=1)
        return (fn.decoders.image(node, **decoder_arguments(config)),)

    try:
        build_pipeline(config, graph, batch_size=1).run()
    except RuntimeError as error:
        return error_reason(error)
    return None


def random_seed(config: LoaderConfig, stream: int, epoch: int) -> int:
    """A seed of DALI's operators, below 2**31, for this rank and epoch."""
    words = random_words(config.seed, stream, epoch, np.array([config.rank]), 1)
    return int(words[0, 0]) & 0x7FFFFFFF


def raise_bad(found: dict[int, str]) -> None:
    """Raises BadSampleError for the first of the bad samples."""
    index, line = next(iter(found.items()))
    raise BadSampleError(line, index) from None

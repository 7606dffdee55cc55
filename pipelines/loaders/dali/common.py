"""What the two DALI engines share: building and running pipelines, tensors, finding the image that DALI choked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types

from pipelines.images.codec import decode_rgb
from pipelines.spec import BadSampleError, InputError, LoaderConfig, Source

PREFETCH = 2  # batches in flight inside DALI


def build(
    config: LoaderConfig,
    graph: Callable[[], Sequence[Any]],
    seed: int = 0,
    batch_size: int = 0,
    prefetch: int = PREFETCH,
) -> Pipeline:
    """A pipeline whose outputs `graph` gives, on the CPU or the GPU as the config says.

    The dynamic executor counts references to its buffers, so tensors handed out without a copy stay valid.
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
    """Arguments of all decoders: GPU if there is one, pixels as Pillow and libjpeg-turbo give them.

    Args:
        config: the device.
        part: whether the decoder gives a part of each image. On a GPU its chroma then is DALI's own default: nvJPEG
            before 13.2 is wrong by a pixel at the edges of parts in the other way of upsampling, so nvImageCodec has
            the CPU decode them, without a word.
    """
    device = "cpu" if device_id(config) is None else "mixed"
    # Pillow and torchvision leave EXIF orientation alone; fancy upsampling is what libjpeg-turbo does with chroma.
    return {
        "device": device,
        "output_type": types.RGB,
        "adjust_orientation": False,
        "jpeg_fancy_upsampling": device == "cpu" or not part,
    }


def gpu_arguments(config: LoaderConfig) -> dict[str, Any]:
    """Arguments that a decoder on the GPU takes beside `decoder_arguments`; none on the CPU."""
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


def runs(pipeline: Pipeline) -> Iterator[tuple]:
    """Outputs of `pipeline` until its external source raises StopIteration; afterwards it can be run again."""
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


def numbers(outputs: Any) -> np.ndarray:
    """One small output that lives on the CPU, as an array (B, ...)."""
    return np.array(outputs.as_tensor())


def reason(error: RuntimeError) -> str:
    """The line of DALI's long message that says what happened."""
    lines = [line.strip() for line in str(error).splitlines()]
    after = lines[lines.index("encountered:") + 1 :] if "encountered:" in lines else lines
    return next((line for line in after if line), "no reason given")


def find_bad(source: Source, indices: Iterable[int], config: LoaderConfig, error: RuntimeError) -> dict[int, str]:
    """Which of the samples that were in flight when DALI failed cannot be decoded, and why.

    DALI names neither sample nor file for most kinds of damage. Pillow is asked first; what only DALI cannot
    decode is found by giving it one image at a time.

    Returns:
        index: line that names the file.

    Raises:
        InputError: none of them; DALI failed for another reason.
    """
    indices = sorted({int(index) for index in indices})
    found = {index: line for index in indices if (line := _pillow_says(source, index))}
    found = found or {index: line for index in indices if (line := _dali_says(source, index, config))}
    if not found:
        raise InputError(f"{config.path}: DALI failed, and not for a bad image: {reason(error)}") from error
    return found


def is_good(source: Source, index: int) -> bool:
    """Whether Pillow can decode the sample."""
    return _pillow_says(source, index) is None


def _pillow_says(source: Source, index: int) -> str | None:
    try:
        decode_rgb(source.read(index), source.name(index), index)
    except BadSampleError as error:
        return str(error)
    return None


def _dali_says(source: Source, index: int, config: LoaderConfig) -> str | None:
    refused = refusal(np.frombuffer(source.read(index), np.uint8), config)
    if refused is None:
        return None
    return f"{source.name(index)}: DALI cannot decode it ({refused}), Pillow can; replace it or re-encode it"


def refusal(encoded: np.ndarray, config: LoaderConfig) -> str | None:
    """Why DALI does not decode an image file, uint8 (n,); None if it does."""

    def graph() -> tuple:
        node = fn.external_source(source=lambda: [encoded], batch=True, dtype=types.UINT8, ndim=1)
        return (fn.decoders.image(node, **decoder_arguments(config)),)

    try:
        build(config, graph, batch_size=1).run()
    except RuntimeError as error:
        return reason(error)
    return None


def raise_bad(found: dict[int, str]) -> None:
    """Stops the run at the first of the bad samples."""
    index, line = next(iter(found.items()))
    raise BadSampleError(line, index) from None

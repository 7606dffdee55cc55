"""Third-party loaders, set up as in their own documentation, with the interface that the benchmark needs.

Each delivers batches of uint8 images after RandomResizedCrop of scale (0.08, 1) and flips, one epoch for each
iteration. Workers persist from epoch to epoch if the loader supports that.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from benchmarks.throughput.native_loaders import DynamicDALILoader, TurboLoader
from benchmarks.throughput.third_party_base import BOX, ThirdPartyLoader
from fixres.pipelines.formats.webdataset_reader import TABLE_NAME
from fixres.pipelines.spec import InputError, LoaderConfig

_SHUFFLE_BUFFER = 1000  # as in webdataset's documentation


class StockDataLoader(ThirdPartyLoader):
    """torchvision's ImageFolder and transforms in torch's DataLoader, as in its reference scripts."""

    def _build(self, resolution: int) -> Any:
        from torchvision import datasets

        data = datasets.ImageFolder(str(self._config.path), transforms.Compose(_transforms(resolution)))
        return self._shuffled(data)


class DecoderDataLoader(ThirdPartyLoader):
    """A fast JPEG decoder and torchvision's transforms of tensors in torch's DataLoader."""

    def __init__(self, config: LoaderConfig, decode: Callable[[str], torch.Tensor]) -> None:
        super().__init__(config)
        self._decode = decode

    def _build(self, resolution: int) -> Any:
        from torchvision import datasets
        from torchvision.transforms import v2

        steps = [v2.RandomResizedCrop(resolution, *BOX, antialias=True), v2.RandomHorizontalFlip()]
        return self._shuffled(datasets.ImageFolder(str(self._config.path), v2.Compose(steps), loader=self._decode))


def _simplejpeg(path: str) -> torch.Tensor:
    """uint8 (3, h, w) by libjpeg-turbo."""
    import simplejpeg

    return torch.from_numpy(simplejpeg.decode_jpeg(Path(path).read_bytes())).permute(2, 0, 1)


def _torchcodec(path: str) -> torch.Tensor:
    """uint8 (3, h, w)."""
    from torchcodec.decoders import decode_jpeg

    return decode_jpeg(path)


class BatchedDecodeLoader(ThirdPartyLoader):
    """torchvision decodes a batch of JPEG files on the GPU (nvJPEG); each crop is resized and flipped there.

    Workers only read files. They send a batch of files as one tensor, because each tensor takes a file descriptor. On
    the CPU the same calls decode one file after another.
    """

    def _build(self, resolution: int) -> Any:  # noqa: ARG002 (crops are made outside the loader)
        from torchvision import datasets, io

        data = datasets.ImageFolder(str(self._config.path), loader=io.read_file)
        return self._shuffled(data, collate_fn=_concatenated)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        from torchvision import io

        device = self._config.device
        for files, sizes, labels in self._batches():
            images = io.decode_jpeg(list(files.split(sizes)), mode=io.ImageReadMode.RGB, device=device)
            crops = torch.stack([self._crop(image) for image in images])
            yield crops.permute(0, 2, 3, 1).contiguous(), torch.tensor(labels).to(device)

    def _crop(self, image: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms.v2 import functional

        y, x, h, w = transforms.RandomResizedCrop.get_params(image, *BOX)
        crop = functional.resized_crop(image, y, x, h, w, [self._resolution] * 2, antialias=True)
        return functional.horizontal_flip(crop) if random.random() < 0.5 else crop


class WebDatasetLoader(ThirdPartyLoader):
    """Package `webdataset` on tar shards: the workers of a DataLoader with batch_size=None make the batches."""

    def _build(self, resolution: int) -> Any:
        import webdataset

        config = self._config
        shards = sorted(str(file) for file in config.path.glob("*.tar"))
        if len(shards) < config.num_workers:
            raise InputError(
                f"{config.path} has {len(shards)} shards for {config.num_workers} workers; use fewer threads"
            )
        # Without this limit each worker's epoch ends with a short batch, which is decoded and then dropped.
        num_samples = json.loads((config.path / TABLE_NAME).read_text())["num_samples"]
        num_batches = max(1, num_samples // config.batch_size // max(1, config.num_workers))
        data = (
            webdataset.WebDataset(shards, shardshuffle=len(shards), select_files=_is_image_or_label)
            .shuffle(_SHUFFLE_BUFFER)
            .decode("pil")
            .to_tuple("jpg", "cls")
            .map_tuple(transforms.Compose(_transforms(resolution)))
            .batched(config.batch_size, partial=False)
            .with_epoch(nbatches=num_batches)
        )
        return self._in_workers(data, batch_size=None)


class SPDLLoader(ThirdPartyLoader):
    """Package `spdl`: FFmpeg decodes, crops, scales and flips each file in threads with a filter description."""

    def __init__(self, config: LoaderConfig) -> None:
        super().__init__(config)
        import spdl.io

        self._io = spdl.io
        files = sorted(config.path.rglob("*.jpg"))
        names = sorted({file.parent.name for file in files})
        self._samples = [(file, names.index(file.parent.name)) for file in files]
        try:
            spdl.io.demux_image(str(files[0]))
        except RuntimeError as error:
            first = str(error).split(",")[0]
            raise InputError(
                f"engine='spdl' did not find FFmpeg (version 4 or later): {first}; install ffmpeg"
            ) from None

    def _build(self, resolution: int) -> Any:
        from spdl.dataloader import DataLoader

        return DataLoader(
            _Shuffled(self._samples, self._config.batch_size),
            preprocessor=lambda sample: (self._decode(sample[0], resolution), sample[1]),
            batch_size=self._config.batch_size,
            drop_last=True,
            aggregator=self._gather,
            num_threads=self._config.num_workers,
        )

    def _decode(self, file: Path, side: int) -> Any:
        packets = self._io.demux_image(str(file))
        size = (packets.codec.height, packets.codec.width)
        # get_params needs the size only; an expanded scalar has it without the memory.
        y, x, h, w = transforms.RandomResizedCrop.get_params(torch.empty(()).expand(3, *size), *BOX)
        flip = "hflip," if random.random() < 0.5 else ""
        description = f"crop={w}:{h}:{x}:{y}:exact=1,scale={side}:{side}:flags=bilinear,{flip}format=pix_fmts=rgb24"
        return self._io.decode_packets(packets, filter_desc=description)

    def _gather(self, samples: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        frames, labels = zip(*samples, strict=True)
        return self._io.to_torch(self._io.convert_frames(list(frames))), torch.tensor(labels)


class _Shuffled:
    """A source for SPDL, in a new order for each iteration, with as many samples as fill whole batches.

    SPDL drops a short last batch only after it has decoded the images; other loaders never decode them.
    """

    def __init__(self, samples: list[tuple[Path, int]], batch_size: int) -> None:
        self._samples, self._num = samples, len(samples) // batch_size * batch_size

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        return iter(random.sample(self._samples, self._num))


def _is_image_or_label(name: str) -> bool:
    # Our shards have a third member, KEY.index, of eight bytes; webdataset's decoder would read it as decimal digits.
    return not name.endswith(".index")


def _transforms(resolution: int) -> list[Any]:
    return [transforms.RandomResizedCrop(resolution), transforms.RandomHorizontalFlip(), to_bytes]


def to_bytes(image: Image.Image) -> torch.Tensor:
    """uint8 (3, h, w); gray and four-channel files become RGB."""
    return transforms.functional.pil_to_tensor(image.convert("RGB"))


def _concatenated(samples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, list[int], list[int]]:
    """Concatenated files, uint8 (n,), their sizes and labels; files of different lengths cannot be stacked."""
    files, labels = zip(*samples, strict=True)
    return torch.cat(files), [len(file) for file in files], list(labels)


LOADERS: dict[str, Callable[[LoaderConfig], ThirdPartyLoader]] = {
    "torchvision": StockDataLoader,
    "torchvision-gpu": BatchedDecodeLoader,
    "simplejpeg": partial(DecoderDataLoader, decode=_simplejpeg),
    "torchcodec": partial(DecoderDataLoader, decode=_torchcodec),
    "turboloader": TurboLoader,
    "dali-dynamic": DynamicDALILoader,
    "webdataset": WebDatasetLoader,
    "spdl": SPDLLoader,
}
"""By the names of engines."""

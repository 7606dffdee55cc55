"""Loaders that people would reach for, set up as their own documentation does, in the shape the benchmark drives.

Each gives batches of uint8 pictures after RandomResizedCrop of scale (0.08, 1) and flips, one epoch each time it is
iterated. Workers live on from epoch to epoch where the rival can do that.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torchvision import transforms

from pipelines.formats.webdataset_reader import TABLE_NAME
from pipelines.runtime.process_pool import main_module_hidden, safe_context
from pipelines.spec import InputError, LoaderConfig

_SHUFFLE_BUFFER = 1000  # as in webdataset's documentation


class Rival(ABC):
    """What rivals share: a loader that is built anew for each resolution."""

    counters = None

    def __init__(self, config: LoaderConfig) -> None:
        self._config, self._loader, self._resolution = config, None, 0

    @abstractmethod
    def _build(self, resolution: int) -> Any:
        """The rival's own loader: iterating it gives (images, labels)."""

    def _shuffled(self, data: torch.utils.data.Dataset, **more: Any) -> torch.utils.data.DataLoader:
        """torch's own loader over samples with random access."""
        num_workers = self._config.num_workers
        if num_workers:  # its default forks this process, where DALI may run
            more["multiprocessing_context"] = safe_context()
        return torch.utils.data.DataLoader(
            data,
            self._config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            **more,
        )

    def _batches(self) -> Iterator[Any]:
        """An epoch of the rival's own loader."""
        with main_module_hidden():  # from new workers, as in engine torch
            return iter(self._loader)

    def set_epoch(self, epoch: int) -> None:
        torch.manual_seed(epoch)
        random.seed(epoch)

    def set_resolution(self, resolution: int) -> None:
        if resolution != self._resolution:
            self.close()
            self._loader, self._resolution = self._build(resolution), resolution

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        device = self._config.device
        for images, labels in self._batches():
            yield images.to(device), labels.to(device)

    def close(self) -> None:
        self._loader, self._resolution = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StockDataLoader(Rival):
    """torchvision's ImageFolder and transforms in torch's DataLoader, as its reference scripts put them together."""

    def _build(self, resolution: int) -> Any:
        from torchvision import datasets

        data = datasets.ImageFolder(str(self._config.path), transforms.Compose(_transforms(resolution)))
        return self._shuffled(data)


class BatchedDecodeLoader(Rival):
    """torchvision's decoding of a batch of JPEG files on the GPU (nvJPEG), then each crop resized and flipped there.

    Workers only read files; a batch of them travels as one tensor, for each tensor takes a file descriptor. On the CPU
    the same calls decode one file after the other.
    """

    def _build(self, resolution: int) -> Any:  # noqa: ARG002 (crops are made outside the loader)
        from torchvision import datasets, io

        data = datasets.ImageFolder(str(self._config.path), loader=io.read_file)
        return self._shuffled(data, collate_fn=_end_to_end)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        from torchvision import io

        device = self._config.device
        for files, sizes, labels in self._batches():
            pictures = io.decode_jpeg(list(files.split(sizes)), mode=io.ImageReadMode.RGB, device=device)
            crops = torch.stack([self._crop(picture) for picture in pictures])
            yield crops.permute(0, 2, 3, 1).contiguous(), torch.tensor(labels).to(device)

    def _crop(self, picture: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms.v2 import functional

        y, x, h, w = transforms.RandomResizedCrop.get_params(picture, (0.08, 1), (3 / 4, 4 / 3))
        crop = functional.resized_crop(picture, y, x, h, w, [self._resolution] * 2, antialias=True)
        return functional.horizontal_flip(crop) if random.random() < 0.5 else crop


class WebDatasetLoader(Rival):
    """Package `webdataset` over tar shards: batches made in the workers of a DataLoader with batch_size=None."""

    def _build(self, resolution: int) -> Any:
        import webdataset

        config = self._config
        shards = sorted(str(file) for file in config.path.glob("*.tar"))
        if len(shards) < config.num_workers:
            raise InputError(
                f"{config.path} has {len(shards)} shards for {config.num_workers} workers; use fewer threads"
            )
        # Else each worker's epoch would end with a batch that is decoded and, being short, dropped.
        num_samples = json.loads((config.path / TABLE_NAME).read_text())["num_samples"]
        num_batches = max(1, num_samples // config.batch_size // max(1, config.num_workers))
        data = (
            webdataset.WebDataset(shards, shardshuffle=len(shards), select_files=_is_picture_or_label)
            .shuffle(_SHUFFLE_BUFFER)
            .decode("pil")
            .to_tuple("jpg", "cls")
            .map_tuple(transforms.Compose(_transforms(resolution)))
            .batched(config.batch_size, partial=False)
            .with_epoch(nbatches=num_batches)
        )
        workers = config.num_workers
        return torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers, persistent_workers=workers > 0)


class SPDLLoader(Rival):
    """Package `spdl`: FFmpeg decodes, cuts, scales and flips each file in threads, as a filter description says."""

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
            raise InputError(f"engine='spdl' finds no FFmpeg (version 4 or later): {first}; install ffmpeg") from None

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
        # get_params looks at the size only; an expanded scalar has it without the memory.
        y, x, h, w = transforms.RandomResizedCrop.get_params(
            torch.empty(()).expand(3, *size), (0.08, 1), (3 / 4, 4 / 3)
        )
        flip = "hflip," if random.random() < 0.5 else ""
        description = f"crop={w}:{h}:{x}:{y}:exact=1,scale={side}:{side}:flags=bilinear,{flip}format=pix_fmts=rgb24"
        return self._io.decode_packets(packets, filter_desc=description)

    def _gather(self, samples: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        frames, labels = zip(*samples, strict=True)
        return self._io.to_torch(self._io.convert_frames(list(frames))), torch.tensor(labels)


class _Shuffled:
    """A source for SPDL, in another order each time it is iterated: as many as fill whole batches.

    SPDL drops a short last batch only when its pictures are decoded; other loaders never decode them.
    """

    def __init__(self, samples: list[tuple[Path, int]], batch_size: int) -> None:
        self._samples, self._num = samples, len(samples) // batch_size * batch_size

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        return iter(random.sample(self._samples, self._num))


def _is_picture_or_label(name: str) -> bool:
    # Our shards' third member, KEY.index, is eight bytes for DALI; webdataset's decoder takes it for decimal digits.
    return not name.endswith(".index")


def _transforms(resolution: int) -> list[Any]:
    return [transforms.RandomResizedCrop(resolution), transforms.RandomHorizontalFlip(), to_bytes]


def to_bytes(image: Image.Image) -> torch.Tensor:
    """uint8 (3, h, w); gray and four-channel files become RGB."""
    return transforms.functional.pil_to_tensor(image.convert("RGB"))


def _end_to_end(samples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, list[int], list[int]]:
    """Files one behind the other, uint8 (n,), their sizes and labels; of different lengths, they cannot be stacked."""
    files, labels = zip(*samples, strict=True)
    return torch.cat(files), [len(file) for file in files], list(labels)

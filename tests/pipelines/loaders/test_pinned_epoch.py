"""Nothing changed: SHA-256 digests of epochs that an earlier version of this code delivered.

The data is made here from an integer formula. The literals were computed by commit 471ecb3 (before the modules moved).
They may change when crops, pixels or the RoC format change on purpose; the CHANGELOG then says so. They may also change
with Pillow's libjpeg-turbo, which writes and decodes the source files: `test_source_files` fails then, too. Compute new
literals with the commit before the change. The digests of engines torch, roc-dali and dali-slice hold for the versions
of Pillow and DALI given here; with other versions these tests are skipped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import EvalCrop, LoaderConfig, TrainCrop

NUM_FILES, NUM_CLASSES = 36, 3
# name: crop, resolution, epoch
EPOCHS = {
    "train-64": (TrainCrop(), 64, 0),
    "train-96": (TrainCrop(scale=(0.35, 1.0)), 96, 1),
    "test-80": (EvalCrop(), 80, 0),
}
FILES = "cf20bf05272722f8362f721f4ccee265212276c599a220ed8bc5ea205e7c9107"
CONVERTED = "165c4453cf7969532158117256dbd38ff520f6808a9e73879fac62b53bec19cd"
ORDER = {
    "train-64": "8f2c98fb8b0a6ed40d43688e34aeba8019a42271c9060edc38d3ca2f9b1ad2c6",
    "train-96": "b181d4a46321a75dddcdf67dc4d751d0e875b921c1722d7a9a30afc40e3ae50e",
    "test-80": "d83aa6aec830bccac9adaa7b098ed864252d7b209259640b0b5f8952d960fa8b",
}
ROC = {
    "train-64": "3f41837ae0a0964dafdc38d1bd5ad9efa7a7007db66559315324a51043c54a0d",
    "train-96": "f099a29823675b27879205745ecf0470461fa1cf7245ad71357fef59e26590a8",
    "test-80": "b5e90e6be5ad98ac6a7eda34d7ab07420ad05a417fb3a63dfdd1dc7fd9e5c7ea",
}
PILLOW_VERSION = "13.0.0"
PILLOW = {
    "train-64": "4e6c20942ec42e4a1f37da2b69c3ac1a9dbe7a0dd7d834a43467a33132c9b9a7",
    "train-96": "a9bbf89ac7ea553eeb2a808e011d33b1a665207c29077f8027f6408fd0ca7706",
    "test-80": "e45acd44720ff345eea5d8ed1743b2d992549bf8bfee11de957f677eb78e885c",
}
DALI_VERSION = "2.4.0"
ROC_DALI = {
    "train-64": "b7007033c83c15847f4253be2e5499d0fd6e3d7c1e86448cf579f64b83e2084a",
    "train-96": "94daf7185a1e39b0bdaf69daa04d9e74200908535ea1d70ea706804ff2d94c99",
    "test-80": "cc2b4b2918b86ae2cdb6363f9e6c50a34437163c0dbd759929569ff4520126e6",
}
DALI_SLICE = {
    "train-64": "e2dca35d6a4708ebd72c8a81011f96fd56875abe1b811902d1c2d445c5b6e3ad",
    "train-96": "11c452daad5624707e87da9eaa89a31c79a509fc35d8c0cf81810134c5caa5cb",
    "test-80": "b8e5873af18738084e29c9a5744389d5bdf5ff77ae9eb734083fae107cb627af",
}


def picture(number: int) -> np.ndarray:
    """uint8 (H, W, 3), 120 to 400 pixels a side: ramps, fine stripes and a texture, in integers only."""
    height, width = 120 + number * 71 % 281, 120 + number * 113 % 281
    y, x = np.mgrid[:height, :width]
    red = x * 255 // width + (x * (number + 2) + y) // 5 % 32 - 16
    green = y * 255 // height + (x // 6 + y // 9 + number) % 2 * 60 - 30
    blue = (x * x // 97 + y * y // (31 + number) + number * 40) % 256
    return np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageFolder of JPEG files."""
    root = tmp_path_factory.mktemp("pinned")
    for number in range(NUM_FILES):
        inner = root / f"class_{number % NUM_CLASSES}"
        inner.mkdir(exist_ok=True)
        Image.fromarray(picture(number)).save(inner / f"{number:03d}.jpg", quality=88)
    return root


@pytest.fixture(scope="module")
def beton(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as RoC records, at most 300 pixels a side."""
    path = tmp_path_factory.mktemp("converted") / "pinned.beton"
    convert(folder, path, ConversionConfig("roc", max_side=300, num_workers=0, progress=False))
    return path


def digest(*parts: np.ndarray | bytes) -> str:
    return hashlib.sha256(b"".join(bytes(np.ascontiguousarray(part)) for part in parts)).hexdigest()


def epoch_of(engine: str, path: Path, name: str, **settings: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and indices of one epoch, in the order of delivery."""
    crop, resolution, epoch = EPOCHS[name]
    training = isinstance(crop, TrainCrop)
    fields = {"batch_size": 10, "num_workers": 2, "seed": 7, "shuffle": training, "drop_last": training}
    fields["min_zoom"] = 0.8  # the default of that version
    with open_loader(engine, LoaderConfig(path, crop, resolution, **(fields | settings))) as loader:
        loader.set_epoch(epoch)
        batches = [[np.array(part) for part in batch] for batch in loader]
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def test_source_files(folder: Path) -> None:
    """If this fails, Pillow writes other JPEG files than when the digests were taken."""
    assert digest(*(file.read_bytes() for file in sorted(folder.glob("*/*.jpg")))) == FILES


def test_converted_file(beton: Path) -> None:
    assert digest(beton.read_bytes()) == CONVERTED


@pytest.mark.parametrize("name", EPOCHS)
def test_roc(beton: Path, name: str) -> None:
    images, labels, indices = epoch_of("roc", beton, name)
    assert digest(labels, indices) == ORDER[name]
    assert digest(images) == ROC[name]


@pytest.mark.parametrize("name", EPOCHS)
def test_torch(beton: Path, name: str) -> None:
    """The same order; within a gray level of engine roc at full levels on average, whatever Pillow's version is."""
    images, labels, indices = epoch_of("torch", beton, name)
    assert digest(labels, indices) == ORDER[name]
    roc, _, _ = epoch_of("roc", beton, name, min_zoom=float("inf"))
    assert np.abs(images.astype(int) - roc).mean() < 1.0


@pytest.mark.skipif(PIL.__version__ != PILLOW_VERSION, reason=f"the digests are those of Pillow {PILLOW_VERSION}")
@pytest.mark.parametrize("name", EPOCHS)
def test_torch_digest(folder: Path, name: str) -> None:
    assert digest(epoch_of("torch", folder, name)[0]) == PILLOW[name]


@pytest.mark.parametrize("name", EPOCHS)
@pytest.mark.parametrize(("engine", "digests"), [("roc-dali", ROC_DALI), ("dali-slice", DALI_SLICE)])
def test_dali_digest(beton: Path, engine: str, digests: dict[str, str], name: str) -> None:
    version = pytest.importorskip("nvidia.dali").__version__
    if version != DALI_VERSION:
        pytest.skip(f"the digests are those of DALI {DALI_VERSION}, installed is {version}")
    images, labels, indices = epoch_of(engine, beton, name)
    assert digest(labels, indices) == ORDER[name]
    assert digest(images) == digests[name]

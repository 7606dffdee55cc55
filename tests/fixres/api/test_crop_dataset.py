"""`fixres.CropDataset`: the engines' crops, in any DataLoader."""

from __future__ import annotations

import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Subset, WeightedRandomSampler, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import fixres
from fixres.api.crop_dataset import CropDataset
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig, Part
from fixres.pipelines.spec import EvalCrop, InputError
from tests.coded import read_box

KINDS = ("folder", "roc", "ffcv", "parts", "shards")


@pytest.fixture(scope="module")
def stored(coded_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 24 images in each kind of storage."""
    root = tmp_path_factory.mktemp("stored")
    kinds: dict[str, tuple[str, dict]] = {"roc": ("roc", {}), "ffcv": ("ffcv", {}), "shards": ("webdataset", {})}
    found = {"folder": coded_folder, "parts": root / "parts"}
    for name, (format, options) in kinds.items():
        found[name] = root / (name if format == "webdataset" else f"{name}.beton")
        convert(coded_folder, found[name], ConversionConfig(format, num_workers=0, progress=False, **options))
    found["parts"].mkdir()
    for number in (0, 1):
        config = ConversionConfig("roc", num_workers=0, progress=False, part=Part(number, 2))
        convert(coded_folder, found["parts"] / "x.beton", config)
    return found


def by_index(path: Path, epoch: int = 0, **options: object) -> dict[int, torch.Tensor]:
    """The crops that `fixres.Loader` makes: uint8 (3, r, r) by index."""
    options = {
        "num_workers": 0,
        "device": "cpu",
        "normalize": False,
        "with_indices": True,
        "drop_last": False,
    } | options
    with fixres.Loader(path, 32, 8, **options) as loader:
        loader.set_epoch(epoch)
        return {
            int(i): image.clone() for images, _, indices in loader for i, image in zip(indices, images, strict=True)
        }


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_seed_it_has_the_crops_of_the_loader(kind: str, stored: dict[str, Path]) -> None:
    dataset = CropDataset(stored[kind], 32, seed=3, hflip=0.5)
    for epoch in (0, 2):
        dataset.set_epoch(epoch)
        expected = by_index(stored[kind], epoch, seed=3)
        samples = dataset.__getitems__(range(24))
        assert all(torch.equal(crop, expected[i]) for i, (crop, _) in enumerate(samples))
        assert torch.equal(dataset[5][0], expected[5]) and torch.equal(dataset[-1][0], expected[23])


@pytest.mark.parametrize("kind", KINDS)
def test_classes_and_labels_are_those_of_image_folder(kind: str, coded_folder: Path, stored: dict[str, Path]) -> None:
    reference, dataset = ImageFolder(str(coded_folder)), CropDataset(stored[kind], 32)
    assert (dataset.classes, dataset.class_to_idx) == (reference.classes, reference.class_to_idx)
    assert dataset.targets == reference.targets and len(dataset) == len(reference) and dataset.num_classes == 2
    assert [label for _, label in dataset.imgs] == reference.targets and [
        dataset[i][1] for i in range(24)
    ] == dataset.targets
    if kind == "folder":
        assert dataset.imgs == reference.imgs


@pytest.mark.parametrize("kind", ["folder", "roc"])
def test_test_crops_are_torchvisions(kind: str, coded_folder: Path, stored: dict[str, Path]) -> None:
    """Of images that are not enlarged, within the tolerance of the stored JPEG."""
    resize = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.PILToTensor()])
    dataset = CropDataset(stored[kind], 32, train=False)
    for index, (path, _) in enumerate(ImageFolder(str(coded_folder)).imgs):
        with Image.open(path) as image:
            difference = (dataset[index][0].int() - resize(image.convert("RGB")).int()).abs().float()
        assert difference.mean() < (1 if kind == "folder" else 3), path


def test_without_a_seed_crops_come_from_torchs_generator(stored: dict[str, Path]) -> None:
    dataset = CropDataset(stored["roc"], 32)
    loader = DataLoader(dataset, 8, num_workers=0)
    torch.manual_seed(7)
    first, second = ([images for images, _ in loader] for _ in range(2))
    torch.manual_seed(7)
    again = [images for images, _ in loader]
    assert all(map(torch.equal, first, again)) and not any(map(torch.equal, first, second))
    (one, _), (other, _) = dataset.__getitems__([4, 4])  # as a sampler with replacement may ask
    assert not torch.equal(one, other)


def test_flips_are_left_to_the_transform(stored: dict[str, Path], coded_sizes: list[tuple[int, int]]) -> None:
    dataset = CropDataset(stored["folder"], 64, scale=(0.5, 1.0))
    for index in range(4):
        for _ in range(4):
            *_, flipped = read_box(dataset[index][0].permute(1, 2, 0).numpy(), *coded_sizes[index])
            assert not flipped


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_epoch_and_resolution_reach_running_workers(context: str, stored: dict[str, Path]) -> None:
    # A function of torch: a spawned worker would import torchvision for one of its transforms, for 2 s of a core.
    dataset = CropDataset(stored["roc"], 32, seed=1, transform=partial(torch.div, other=255))
    loader = DataLoader(dataset, 8, num_workers=1, persistent_workers=True, multiprocessing_context=context)
    seen = []
    for epoch, resolution in ((0, 32), (1, 48), (0, 32)):
        dataset.set_epoch(epoch)
        dataset.set_resolution(resolution)
        seen.append(torch.cat([images for images, _ in loader]))
        assert seen[-1].shape == (24, 3, resolution, resolution) and dataset.resolution == resolution
        assert seen[-1].dtype == torch.float32 and 0.5 < seen[-1].max() <= 1
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1][:, :, :32, :32])
    alone = DataLoader(dataset, 8)
    assert torch.equal(torch.cat([images for images, _ in alone]), seen[2])


def test_samplers_and_subsets(stored: dict[str, Path]) -> None:
    dataset = CropDataset(stored["roc"], 32)
    weights = [1.0 if target else 0.0 for target in dataset.targets]
    drawn = [labels for _, labels in DataLoader(dataset, 4, sampler=WeightedRandomSampler(weights, 12))]
    assert torch.cat(drawn).tolist() == [1] * 12
    batches = BatchSampler(range(0, 24, 5), 2, drop_last=False)
    assert [len(labels) for _, labels in DataLoader(dataset, batch_sampler=batches)] == [2, 2, 1]
    ((_, labels),) = DataLoader(Subset(dataset, [23, 0]), 2)
    assert labels.tolist() == [1, 0]


def test_copies_for_workers_are_small_and_open_the_file_themselves(stored: dict[str, Path]) -> None:
    dataset = CropDataset(stored["roc"], 32, seed=2)
    data = pickle.dumps(dataset)
    assert len(data) < 5000
    assert torch.equal(pickle.loads(data)[3][0], dataset[3][0])


def test_a_copy_refuses_a_file_with_other_labels(stored: dict[str, Path], tmp_path: Path) -> None:
    """Workers that are not forked open the path again; the labels are those of the file that was there before."""
    path = Path(shutil.copy(stored["roc"], tmp_path / "x.beton"))
    data = pickle.dumps(CropDataset(path, 32))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "1.jpg")
    other = ConversionConfig("roc", num_workers=0, progress=False)
    convert(tmp_path / "photos", tmp_path / "new.beton", other)
    os.replace(tmp_path / "new.beton", path)
    with pytest.raises(InputError, match=r"x\.beton was replaced since the data set was opened; open it again"):
        pickle.loads(data)[0]


def test_views_are_different_crops_of_one_image(stored: dict[str, Path], coded_sizes: list[tuple[int, int]]) -> None:
    dataset = CropDataset(stored["folder"], 48, views=3, seed=5)
    crops, label = dataset[6]
    assert label == dataset.targets[6] and len(crops) == 3
    boxes = {tuple(np.round(read_box(crop.permute(1, 2, 0).numpy(), *coded_sizes[6])[:4])) for crop in crops}
    assert len(boxes) == 3
    assert torch.equal(crops[0], by_index(stored["folder"], seed=5, hflip=0.0)[6]) is False  # 48 px, not 32
    images, labels = default_collate([dataset[6], dataset[7]])
    assert [view.shape for view in images] == [(2, 3, 48, 48)] * 3 and labels.shape == (2,)


@pytest.mark.parametrize(
    ("output_type", "kind"), [("tensor", torch.Tensor), ("pil", Image.Image), ("numpy", np.ndarray)]
)
def test_a_transform_gets_the_type_it_asks_for(output_type: str, kind: type, stored: dict[str, Path]) -> None:
    seen = []
    options = {"output_type": output_type, "seed": 4, "target_transform": lambda label: label + 10}
    dataset = CropDataset(stored["roc"], 32, transform=lambda crop: seen.append(crop) or 0, **options)
    assert dataset[20] == (0, 10 + dataset.targets[20]) and isinstance(seen[0], kind)
    expected = CropDataset(stored["roc"], 32, seed=4)[20][0].permute(1, 2, 0).numpy()
    pixels = seen[0].permute(1, 2, 0).numpy() if output_type == "tensor" else np.asarray(seen[0])
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("kind", ["folder", "roc"])
def test_a_damaged_image_is_named_or_replaced(kind: str, stored: dict[str, Path], tmp_path: Path) -> None:
    if kind == "folder":
        damaged = Path(shutil.copytree(stored["folder"], tmp_path / "copy"))
        path = sorted(damaged.rglob("*.jpg"))[4]
        path.write_bytes(path.read_bytes()[:40])
    else:
        damaged = Path(shutil.copy(stored["roc"], tmp_path / "x.beton"))
        reader = CropDataset(damaged, 32)._opened()
        data = bytearray(damaged.read_bytes())
        start, size, roc_start, roc_size = (int(v) for v in reader._table[4, :4])
        data[start : start + size] = bytes(size)
        data[roc_start : roc_start + roc_size] = bytes(roc_size)
        damaged.write_bytes(data)
    with pytest.raises(InputError, match=r"copy/.*jpg" if kind == "folder" else r"x\.beton: sample 4"):
        CropDataset(damaged, 32).__getitems__([3, 4, 5])
    replacing = CropDataset(damaged, 32, on_bad="replace", seed=1)
    with pytest.warns(UserWarning, match="the next image takes its place"):
        samples = replacing.__getitems__([3, 4, 5])
    assert torch.equal(samples[1][0], replacing[5][0]) and len(samples) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 4}, "resolution=4 is not supported"),
        ({"resolution": "128"}, "resolution='128' must be a whole number"),
        ({"views": 0}, "views=0 must be at least 1"),
        ({"seed": -1}, r"seed=-1 must be in \[0, 2\*\*64\)"),
        ({"scale": (0.0, 1.0)}, "scale="),
        ({"output_type": "jax"}, "output_type='jax' must be"),
    ],
)
def test_wrong_values(options: dict[str, object], message: str, stored: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=message):
        CropDataset(stored["roc"], **{"resolution": 32} | options)


def test_wrong_places(stored: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        CropDataset(tmp_path / "nowhere", 32)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    for opened, options in ((CropDataset, {}), (fixres.Loader, {"batch_size": 2})):
        with pytest.raises(InputError, match=r"x\.parquet: not a readable parquet file"):
            opened(tmp_path / "x.parquet", 32, **options)
    dataset = CropDataset(stored["roc"], 32, crop=EvalCrop(1.0))
    with pytest.raises(IndexError, match="index 24 is out of range for 24 images"):
        dataset[24]
    with pytest.raises(TypeError, match="float"):
        dataset[1.5]
    with pytest.raises(InputError, match="epoch=-1 must be in"):
        dataset.set_epoch(-1)

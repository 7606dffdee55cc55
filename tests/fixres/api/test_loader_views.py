"""`fixres.Loader`: several crops, a user's function, subsets, weights, and the attributes of a DataLoader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Sampler

from fixres.api.crop_dataset import CropDataset
from fixres.api.loader import Loader
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.sampling.crops import seed_of_view
from fixres.pipelines.spec import InputError

MULTI_CROP = [(2, 48, (0.4, 1.0)), (3, None, (0.05, 0.4))]


@pytest.fixture(scope="module")
def stored(coded_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stored")
    paths = {"folder": coded_folder, "roc": root / "roc.beton", "ffcv": root / "ffcv.beton"}
    for format in ("roc", "ffcv"):
        convert(coded_folder, paths[format], ConversionConfig(format, num_workers=0, progress=False))
    return paths


def opened(path: Path, **options: object) -> Loader:
    settings = {"num_workers": 0, "device": "cpu", "seed": 3, "normalize": False, "with_indices": True}
    return Loader(path, options.pop("resolution", 32), 5, **settings | options)


def invert(crop: np.ndarray) -> np.ndarray:
    return 255 - crop


@pytest.mark.parametrize(("kind", "engine"), [("folder", "torch"), ("folder", "roc"), ("roc", "roc"), ("ffcv", "roc")])
def test_views_are_the_crops_of_single_loaders(kind: str, engine: str, stored: dict[str, Path]) -> None:
    """View k has the boxes of another seed; sides and scales are those of its group."""
    sides, scales = [48, 48, 32, 32, 32], [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 3
    with opened(stored[kind], engine=engine, views=MULTI_CROP, num_workers=2 if engine == "roc" else 0) as loader:
        views = [(images, indices) for images, _, indices in loader]
        samples = [loader.dataset[int(views[0][1][k])][0] for k in range(5)]
    for k, (side, scale) in enumerate(zip(sides, scales, strict=True)):
        order = {"indices": views[0][1].tolist(), "shuffle": False}  # the order is that of the first view's seed
        with opened(
            stored[kind], engine=engine, resolution=side, scale=scale, seed=seed_of_view(3, k), **order
        ) as single:
            ((expected, _, indices),) = list(single)
        assert views[0][0][k].shape == (5, 3, side, side) and indices.tolist() == views[0][1].tolist()
        assert torch.equal(views[0][0][k], expected)
    with opened(stored[kind], views=MULTI_CROP) as loader:
        loader.set_epoch(0)
        dataset = CropDataset(stored[kind], 32, crop=loader.dataset._crop, seed=3, views=MULTI_CROP)
    assert all(torch.equal(one, other) for one, other in zip(dataset[7][0], loader.dataset[7][0], strict=True))
    assert len(samples[0]) == 5


def test_normalized_views_and_a_new_resolution(stored: dict[str, Path]) -> None:
    with opened(stored["roc"], views=2, normalize=True) as loader, opened(stored["roc"], views=2) as plain:
        ((first, second), _, _), ((raw, _), _, _) = next(iter(loader)), next(iter(plain))
        assert first.shape == second.shape == (5, 3, 32, 32) and not torch.equal(first, second)
        assert first.is_contiguous(memory_format=torch.channels_last) and first.dtype == torch.float32
        std, mean = (torch.tensor(values).view(3, 1, 1) for values in ((0.229, 0.224, 0.225), (0.485, 0.456, 0.406)))
        assert torch.allclose(first * std + mean, raw / 255, atol=1e-5)
        loader.set_resolution(40)
        assert [len(view[0, 0]) for view in next(iter(loader))[0]] == [40, 40]
    with opened(stored["roc"], views=[(2, 32)]) as loader, pytest.raises(InputError, match="views name the sides"):
        loader.set_resolution(40)


def test_a_damaged_image_is_replaced_in_all_views(stored: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    data = bytearray(stored["roc"].read_bytes())
    with opened(stored["roc"], train=False) as loader:
        start, size, roc_start, roc_size = (int(value) for value in loader._loader._table[4, :4])
    data[start : start + size], data[roc_start : roc_start + roc_size] = bytes(size), bytes(roc_size)
    path.write_bytes(data)
    options = {"views": MULTI_CROP, "shuffle": False, "indices": range(5), "per_image": invert}
    with opened(path, on_bad="replace", **options) as loader, opened(stored["roc"], **options) as whole:
        ((images, _, indices),), ((expected, _, _),) = list(loader), list(whole)
        assert indices.tolist() == [0, 1, 2, 3, 0] and loader.counters.num_bad_samples == 1  # 5 is not in the subset
        for view, other in zip(images, expected, strict=True):
            assert torch.equal(view[:4], other[:4]) and torch.equal(view[4], other[0])
    with opened(path, **options) as loader, pytest.raises(InputError, match=r"x\.beton: sample 4"):
        list(loader)


@pytest.mark.parametrize(("kind", "engine"), [("folder", "torch"), ("folder", "roc"), ("roc", "roc")])
def test_a_users_function_gets_each_crop(kind: str, engine: str, stored: dict[str, Path]) -> None:
    options = {"views": 2, "engine": engine, "num_workers": 1, "indices": range(5), "shuffle": False}
    with opened(stored[kind], per_image=invert, **options) as changed, opened(stored[kind], **options) as plain:
        for (images, *_), (expected, *_) in zip(changed, plain, strict=True):
            assert all(torch.equal(255 - one, other) for one, other in zip(images, expected, strict=True))


def test_wrong_functions_are_named(stored: dict[str, Path]) -> None:
    for function, message in ((lambda crop: crop[:8], r"uint8 of shape \(8, 32, 3\)"), (lambda _: None, "NoneType")):
        with opened(stored["roc"], per_image=function) as loader:
            with pytest.raises(InputError, match=f"per_image returned {message}.*must return a uint8 array"):
                next(iter(loader))
    with pytest.raises(InputError, match=r"cannot be sent to worker processes.*or set num_workers=0"):
        opened(stored["folder"], engine="torch", per_image=lambda crop: crop, num_workers=1)
    with pytest.raises(InputError, match="engine='dali-slice' makes one crop of each image"):
        pytest.importorskip("nvidia.dali")
        opened(stored["folder"], views=2, engine="dali-slice")


def test_weighted_draws_and_their_resume(stored: dict[str, Path]) -> None:
    weights = torch.tensor([0.0, 0, 1, 3, 1, 1, 1, 1])
    options = {"indices": np.arange(10, 18), "weights": weights, "drop_last": False}
    with opened(stored["roc"], **options) as loader:
        assert (loader.num_samples, len(loader), len(loader.dataset)) == (8, 2, 8)
        batches = iter(loader)
        next(batches)
        state, rest = loader.state_dict(), next(batches)
        assert set(rest[2].tolist()) <= set(range(12, 18))
        second = [indices.tolist() for _, _, indices in loader]
    with opened(stored["roc"], **options) as other:
        other.load_state_dict(state)
        ((images, _, indices),) = list(other)
        assert torch.equal(images, rest[0]) and torch.equal(indices, rest[2])
        assert [indices.tolist() for _, _, indices in other] == second
    with opened(stored["roc"]) as other, pytest.raises(InputError, match="resume with the same data and settings"):
        other.load_state_dict(state)


def test_it_has_the_attributes_of_a_data_loader(stored: dict[str, Path]) -> None:
    with opened(stored["roc"], indices=range(3, 20), drop_last=True, rank=1, world_size=2) as loader:
        assert isinstance(loader.sampler, Sampler) and isinstance(loader.batch_sampler, Sampler)
        loader.sampler.set_epoch(4)  # as timm's script does
        order, batches = list(loader.sampler), list(loader.batch_sampler)
        seen = [indices.tolist() for _, _, indices in loader]
        assert batches == seen and order == [*seen[0]] and list(loader.batch_sampler) != seen
        assert (len(loader.sampler), len(loader.batch_sampler), loader.batch_sampler.batch_size) == (5, 1, 5)
        assert loader.drop_last and loader.batch_sampler.drop_last and loader.num_workers == 0
        loader.batch_sampler.set_epoch(4)
        images, labels, indices = next(iter(loader))
        loader.set_epoch(4)
        for image, label, index in zip(images, labels, indices.tolist(), strict=True):
            crop, target = loader.dataset[index - 3]  # a Subset of the images that `indices` names
            assert torch.equal(crop, image) and target == label
        assert loader.dataset.dataset.samples == loader.dataset.dataset.imgs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "views=0 must be at least 1"),
        ({"seed": -1}, r"seed=-1 must be in \[0, 2\*\*64\)"),
        ({"views": []}, "at least one group"),
        ({"views": [(2,)]}, r"views: \(2,\) must be \(number, side\)"),
        ({"views": [(2, 4)]}, "resolution=4 is not supported"),
        ({"views": [(2, 32, (0.5, 2))]}, r"scale=\(0.5, 2\)"),
        ({"views": [(2, 32, (0.1, 1))], "train": False}, "need random crops"),
        ({"views": "two"}, "views='two' must be"),
        ({"views": [(1, 32, 0.5)]}, "scale of views=0.5 must be 2 values, each a number or None"),
        ({"views": 10**6}, "views: 1,000,000 crops of each image, of at most 256"),
        ({"views": [(200, 32), (57, 16)]}, "views: 257 crops of each image"),
        ({"indices": [[1], [2, 3]]}, r"indices=\[\[1\], \[2, 3\]\] must be a list of numbers"),
        ({"indices": [[1], [2]]}, r"indices has the shape \(2, 1\); give a list of positions"),
        ({"indices": [0.5]}, "must be whole numbers"),
        ({"indices": np.ones(24, bool)}, r"np\.flatnonzero\(mask\)"),
        ({"indices": [24]}, "indices has 24, but the data set's positions are 0 to 23"),
        ({"weights": torch.ones(24, 1, requires_grad=True)}, r"weights=tensor\(\[\[1.\], \[1.\], .* must be a list"),
        ({"weights": "a"}, "weights='a' must be a list of numbers"),
        ({"weights": np.ones((24, 1))}, r"weights has the shape \(24, 1\); give a list of 24 numbers"),
        ({"weights": [1.0]}, "weights has 1 values, but there are 24 samples"),
        ({"weights": np.ones(24), "shuffle": False}, "shuffle=False forbids"),
    ],
)
def test_mistakes_name_the_value(options: dict[str, object], message: str, stored: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=message):
        opened(stored["roc"], **options)

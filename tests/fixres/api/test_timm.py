"""`fixres.timm` beside `timm.data`: the same loader, with crops of the same law."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
from timm.data.mixup import FastCollateMixup, Mixup
from timm.data.transforms_factory import create_transform

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.spec import InputError
from fixres.timm import create_dataset, create_loader
from tests.coded import read_box

CPU = {"device": torch.device("cpu"), "num_workers": 0}


@pytest.fixture(scope="module")
def beton(coded_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "train.beton"
    convert(coded_folder, path, ConversionConfig("roc", num_workers=0, progress=False))
    return path


def train_dataset(path: Path) -> Any:
    return create_dataset("", root=path, split="train", is_training=True, batch_size=4, seed=1, input_img_mode=None)


def test_test_batches_are_timms(coded_folder: Path) -> None:
    """From the same files: the same pixels but for the rounding of a resized long side, the same labels and order."""
    ours = create_loader(train_dataset(coded_folder), (3, 48, 48), 5, crop_pct=0.9, **CPU)
    reference = timm.data.create_dataset("", root=str(coded_folder))
    theirs = timm.data.create_loader(reference, (3, 48, 48), 5, crop_pct=0.9, **CPU)
    assert len(ours) == len(theirs) == 5
    for (images, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        assert (
            torch.equal(labels, expected_labels) and images.shape == expected.shape and images.dtype == expected.dtype
        )
        assert (images - expected).abs().mean() < 0.02  # normalized; one gray level is 0.017
    assert ours.dataset.filenames(basename=True) == reference.filenames(basename=True)


def test_training_crops_have_timms_scale_and_flips(coded_folder: Path, coded_sizes: list[tuple[int, int]]) -> None:
    options = {"scale": (0.2, 0.3), "ratio": (1.0, 1.0), "hflip": 1.0, "color_jitter": None, "is_training": True}
    loader = create_loader(
        train_dataset(coded_folder), 96, 1, use_prefetcher=False, mean=(0, 0, 0), std=(1, 1, 1), **options, **CPU
    )
    torch.manual_seed(1)
    sizes = dict(enumerate(coded_sizes))
    for index in (0, 1, 5):
        image, _ = loader.dataset[index]
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        *_, height, width, flipped = read_box(pixels, *sizes[index])
        assert flipped
        assert 0.12 < height * width / math.prod(sizes[index]) < 0.38  # read from pixels, with their error


def test_augmentation_erasing_and_mixing_are_timms(beton: Path) -> None:
    """Of a batch, with the generators in the same state, what comes after the crop is timm's to the bit."""
    options = {"auto_augment": "rand-m6-mstd0.5-inc1", "color_jitter": 0.4, "interpolation": "bilinear", "hflip": 0.5}
    dataset = train_dataset(beton)
    loader = create_loader(dataset, 32, 4, is_training=True, re_prob=1.0, re_mode="pixel", **options, **CPU)
    rest = create_transform(32, is_training=True, use_prefetcher=True, **options).transforms[1:]
    assert [type(step) for step in dataset.transform.transforms] == [type(step) for step in rest]
    images, labels = next(iter(loader))
    assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert loader.loader.dataset is dataset and loader.random_erasing.probability == 1.0 and len(loader) == 6


def test_mixup_of_timms_script(beton: Path) -> None:
    mixup = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1, "num_classes": 2}
    loader = create_loader(train_dataset(beton), 32, 4, is_training=True, collate_fn=FastCollateMixup(**mixup), **CPU)
    images, targets = next(iter(loader))
    assert targets.shape == (4, 2) and loader.mixup_enabled is True
    loader.mixup_enabled = False
    assert loader.loader.collate_fn.mixup_enabled is False
    mixed, targets = Mixup(**mixup)(images, torch.tensor([0, 1, 0, 1]))
    assert mixed.shape == images.shape and targets.shape == (4, 2)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_scheduled_sizes(num_workers: int, beton: Path) -> None:
    """The flag --train-img-sizes of timm's script: a size and a batch size for each batch."""
    options = CPU | {"num_workers": num_workers, "persistent_workers": False}
    loader = create_loader(
        train_dataset(beton), 48, 4, is_training=True, input_size_choices=[32, 48], batch_size_choices=[6, 3], **options
    )
    seen = set()
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        seen |= {tuple(images.shape) for images, _ in loader}
    assert seen == {(6, 3, 32, 32), (3, 3, 48, 48)}


def test_repeated_augmentation_has_a_crop_for_each_repeat(beton: Path) -> None:
    dataset = train_dataset(beton)
    create_loader(dataset, 32, 4, is_training=True, color_jitter=None, hflip=0.0, **CPU)
    one, other = dataset.__getitems__([3, 3])
    assert not np.array_equal(one[0], other[0])


def test_what_is_not_supported_is_said(beton: Path, tmp_path: Path) -> None:
    dataset = train_dataset(beton)
    for options, message in (
        ({"input_size": (3, 32, 48)}, "input_size=32 x 48 must be square"),
        ({"crop_mode": "squash"}, "crop_mode='squash' must be 'center'"),
        ({"train_crop_mode": "rkrc"}, "train_crop_mode='rkrc' must be 'rrc'"),
        ({"num_aug_splits": 3}, "num_aug_splits are not supported"),
    ):
        with pytest.raises(InputError, match=message):
            create_loader(dataset, **{"input_size": 32, "batch_size": 4, "is_training": True} | options | CPU)
    with pytest.raises(InputError, match="interpolation"):
        create_loader(dataset, 32, 4, interpolation="lanczos", **CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_loader(dataset, 32, 4, interpolation="bilinear", **CPU)
    with pytest.raises(InputError, match=r"class_map='x\.txt' is not supported"):
        create_dataset("", root=beton, class_map="x.txt")
    with pytest.raises(InputError, match="root is missing"):
        create_dataset("")
    with pytest.raises(InputError, match="nowhere does not exist"):
        create_dataset("", root=tmp_path / "nowhere")

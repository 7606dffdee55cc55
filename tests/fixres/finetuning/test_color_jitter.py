"""Color jitter against torchvision, image by image; its factors; the loader's other data is unchanged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from fixres.finetuning.color_jitter import Jittered, factors, jittered
from fixres.pipelines.spec import Loader
from tests.kolmogorov import is_uniform


def _torchvisions(image: torch.Tensor, by: np.ndarray) -> torch.Tensor:
    """uint8 (3, H, W) through brightness, contrast and saturation in this order."""
    for adjust, factor in zip(
        (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation), by, strict=True
    ):
        image = adjust(image, float(factor))
    return image


def test_jitter_is_torchvisions() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (12, 9, 7, 3), dtype=torch.uint8, generator=generator)
    by = factors(0.4, 7, 3, np.arange(12))
    wanted = torch.stack([_torchvisions(image.permute(2, 0, 1), f) for image, f in zip(images, by, strict=True)])
    got = jittered(images, torch.from_numpy(by))
    assert got.dtype == torch.uint8 and got.shape == images.shape
    # One level for rounding, which is passed on by the steps that follow.
    assert (got.permute(0, 3, 1, 2).int() - wanted.int()).abs().max() <= 2
    assert (got.permute(0, 3, 1, 2).int() - wanted.int()).abs().float().mean() < 0.1
    assert (got.int() - images.int()).abs().float().mean() > 5


def test_factors_of_one_change_nothing() -> None:
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(jittered(images, torch.ones(4, 3)), images)


def test_factors_are_uniform_and_depend_on_seed_epoch_and_index() -> None:
    drawn = factors(0.05, 3, 1, np.arange(4000))
    assert drawn.shape == (4000, 3) and all(is_uniform(drawn[:, k], 0.95, 1.05) for k in range(3))
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 4 / np.sqrt(4000)
    assert (factors(0.05, 3, 1, np.array([9, 4])) == drawn[[9, 4]]).all()
    for other in (factors(0.05, 4, 1, np.arange(4000)), factors(0.05, 3, 2, np.arange(4000))):
        assert (other != drawn).all(axis=1).mean() > 0.99


def test_a_loader_with_jitter(open_coded: Callable[..., Loader]) -> None:
    """The same labels and indices, images as by hand, other ones in another epoch."""
    plain, other = open_coded(shuffle=True), Jittered(open_coded(shuffle=True), 0.05, 3, torch.device("cpu"))
    assert len(other) == len(plain) and other.resolution == 32 and other.classes == plain.classes
    images = []
    for epoch in (0, 1):
        plain.set_epoch(epoch)
        other.set_epoch(epoch)
        for expected, got in zip(plain, other, strict=True):
            assert torch.equal(expected.labels, got.labels) and torch.equal(expected.indices, got.indices)
            by = torch.from_numpy(factors(0.05, 3, epoch, expected.indices.numpy()))
            assert torch.equal(got.images, jittered(expected.images, by))
            images += [(int(i), image) for i, image in zip(got.indices, got.images, strict=True)]
    assert other.counters.num_images == 48
    pairs = [(a, b) for i, a in images[:24] for j, b in images[24:] if i == j]
    assert len(pairs) == 24 and sum(not torch.equal(a, b) for a, b in pairs) > 20


class _Unnumbered:
    """A loader that cannot tell indices."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> object:
        return (batch._replace(indices=torch.full_like(batch.indices, -1)) for batch in self._loader)


def test_without_indices_the_position_counts(open_coded: Callable[..., Loader]) -> None:
    got = list(Jittered(_Unnumbered(open_coded()), 0.3, 3, torch.device("cpu")))  # type: ignore[arg-type]
    wanted = list(Jittered(open_coded(), 0.3, 3, torch.device("cpu")))  # in stored order these are the indices
    assert all(torch.equal(a.images, b.images) for a, b in zip(got, wanted, strict=True))


def test_without_indices_processes_jitter_as_one_does(
    open_coded: Callable[..., Loader], monkeypatch: pytest.MonkeyPatch
) -> None:
    def images(rank: int, number: int) -> list[torch.Tensor]:
        monkeypatch.setattr("fixres.finetuning.color_jitter.rank", lambda: rank)
        monkeypatch.setattr("fixres.finetuning.color_jitter.num_processes", lambda: number)
        loader = _Unnumbered(open_coded(batch_size=8 // number, rank=rank, world_size=number))
        return [batch.images for batch in Jittered(loader, 0.3, 3, torch.device("cpu"))]  # type: ignore[arg-type]

    halves = zip(images(0, 2), images(1, 2), strict=True)
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(images(0, 1), halves, strict=True))

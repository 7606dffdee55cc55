"""The paper's other networks: their recipes build them, and they train on crops of their own resolution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fixres.config.parsing import parse_recipe
from fixres.models.factory import Normalize, create_model
from fixres.pipelines.spec import Loader
from fixres.training.optimizer import set_lr
from fixres.training.schedule import resolution_at, training_lr
from fixres.training.trainer import create_trainer
from tests.fixres.conftest import CPU


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "num_weights"), [("inception_v3", 299, 23_834_568), ("mobilenet", 224, 4_231_976)]
)
def test_a_step_at_the_papers_resolution(
    name: str, side: int, num_weights: int, open_coded: Callable[..., Loader]
) -> None:
    recipe = parse_recipe(["--config", f"tricks/paper_{name}"])
    variant = recipe.variants["baseline"]
    assert variant.test_res == side and {
        resolution_at(epoch, variant.resolution) for epoch in range(variant.epochs)
    } == {side}
    torch.manual_seed(0)
    net = create_model(recipe.model, 1000)
    # The papers' 24 and 4.2 million weights, with 1,000 classes.
    assert sum(weight.numel() for weight in net.parameters()) == num_weights
    trainer = create_trainer(recipe, net.train(), Normalize(), CPU, tuple(map(str, range(1000))))
    loader = open_coded(crop=recipe.train_crop, resolution=side, batch_size=2)
    batch = next(iter(loader))
    assert batch.images.shape == (2, side, side, 3)
    set_lr(trainer.stepper.optimizer, 0.1)
    before = {key: value.clone() for key, value in net.named_parameters()}
    loss = trainer.step(batch.images, batch.labels)
    assert 6 < loss.item() < 9  # chance is log(1000) = 6.9
    assert all(value.grad is not None and value.grad.isfinite().all() for value in net.parameters())
    kernels = [key for key, value in before.items() if value.ndim == 4]
    assert all(not torch.equal(before[key], value) for key, value in net.named_parameters() if key in kernels)
    loader.close()


@pytest.mark.parametrize("name", ["inception_v3", "mobilenet"])
def test_they_train_as_the_papers_resnet(name: str) -> None:
    ours, resnet = (parse_recipe(["--config", f"tricks/paper_{one}"]) for one in (name, "tricks"))
    assert (ours.optim, ours.augment, ours.train_crop) == (resnet.optim, resnet.augment, resnet.train_crop)
    rates = [training_lr(epoch, 200, ours.optim) for epoch in (0, 2.5, 5, 102.5, 200)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.2, 0])

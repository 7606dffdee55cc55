"""Distillation against the paper's formula, and what a teacher is shown and keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional

from fixres.config.recipe import DistillConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize, create_model
from fixres.pipelines.spec import InputError
from fixres.training.losses import CrossEntropy, Distilled, Teacher, distillation_loss, open_teacher
from tests.fixres.conftest import TINY


def _images(side: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_loss_is_that_of_the_paper(temperature: float) -> None:
    """l(p, softmax(z)) + T^2 l(softmax(r / T), softmax(z / T)), section 5.3, with l the cross entropy."""
    generator = torch.Generator().manual_seed(0)
    z, r = 3 * torch.randn(6, 4, generator=generator), 3 * torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    z64, r64 = z.double().numpy(), r.double().numpy()
    hard = -np.log(_softmax(z64))[np.arange(6), labels.numpy()].mean()
    soft = -(_softmax(r64 / temperature) * np.log(_softmax(z64 / temperature))).sum(1).mean()
    loss = Distilled(CrossEntropy(0.0), lambda _: r, temperature)  # type: ignore[arg-type]
    assert loss(z, labels, _images(8)).item() == pytest.approx(hard + temperature**2 * soft, rel=1e-5)


def test_its_gradient_pulls_towards_the_teacher_and_ends_there() -> None:
    z, r = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4)
    (gradient,) = torch.autograd.grad(distillation_loss(z, r, 20.0), z)
    expected = 20 * ((z / 20).softmax(1) - (r / 20).softmax(1)) / 2
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    same = r.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distillation_loss(same, r, 20.0), same)
    assert gradient.abs().max() < 1e-5


class _Watching(nn.Module):
    """Gives the channels' means, and notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.drop = nn.Parameter(torch.ones(3)), nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return self.drop(images.mean((2, 3)) * self.weight)


def test_the_teacher_sees_its_own_size_and_leaves_no_graph() -> None:
    net, images = _Watching().train(), _images(32)
    teacher = Teacher(net, Normalize(), 20)
    logits = teacher(images)
    plain = functional.resize(Normalize()(images), [20, 20], antialias=True)
    torch.testing.assert_close(net.seen, plain)
    assert not logits.requires_grad and not net.weight.requires_grad
    assert torch.equal(logits, teacher(images))  # no drop-out
    Teacher(net, Normalize(), 32)(images)
    assert torch.equal(net.seen, Normalize()(images))


def _checkpoint(folder: Path, classes: tuple[str, ...], test_res: int = 48) -> Path:
    torch.manual_seed(5)
    net = create_model(TINY, len(classes))
    info = CheckpointInfo(TINY.name, TINY.kwargs, classes, 32, test_res, 0.875, mean=(0.5, 0.5, 0.5))
    save_checkpoint(folder / "teacher.pt", net, info)
    return folder / "teacher.pt"


def test_a_checkpoint_becomes_a_teacher_with_its_own_size_and_normalization(tmp_path: Path) -> None:
    path, device = _checkpoint(tmp_path, ("a", "b")), torch.device("cpu")
    teacher = open_teacher(DistillConfig(str(path)), ("a", "b"), device)
    assert teacher.resolution == 48
    assert open_teacher(DistillConfig(str(path), resolution=64), ("a", "b"), device).resolution == 64
    torch.manual_seed(5)
    oracle, images = create_model(TINY, 2).eval(), _images(48)
    torch.testing.assert_close(teacher(images), oracle(Normalize((0.5, 0.5, 0.5))(images)).detach())


def test_teachers_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    path, device = _checkpoint(tmp_path, ("a", "b", "c")), torch.device("cpu")
    with pytest.raises(InputError, match="knows 3 classes"):
        open_teacher(DistillConfig(str(path)), ("a", "x"), device)
    with pytest.raises(InputError, match=r"nowhere\.pt"):
        open_teacher(DistillConfig(str(tmp_path / "nowhere.pt")), ("a", "b"), device)
    for values in ({"teacher": ""}, {"teacher": "x", "temperature": 0}, {"teacher": "x", "resolution": 3}):
        with pytest.raises(InputError):
            DistillConfig(**values)

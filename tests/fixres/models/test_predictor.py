"""In inference on a CPU a batch is processed in pieces of a limited number of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fixres.models import predictor as module
from fixres.models.factory import Normalize
from fixres.models.precision import choose_precision
from fixres.models.predictor import Predictor


class _Noting(nn.Module):
    """Mean colors; notes the number of images of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return images.mean((2, 3))


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    monkeypatch.setattr(module, "PIXELS_OF_THREAD", 3 * 64 / torch.get_num_threads())  # three images of 8 px
    return Predictor(_Noting().eval(), Normalize(), choose_precision("fp32", torch.device("cpu")))


def test_pieces_give_the_outputs_of_the_batch(predictor: Predictor) -> None:
    images = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = predictor.normalize(images).mean((2, 3))
    with torch.inference_mode():
        torch.testing.assert_close(predictor(images), expected)
        assert predictor.net.calls == [3, 3, 2]
        predictor.net.calls.clear()
        predictor(images.repeat(1, 4, 4, 1))  # larger than a piece: one by one
        assert predictor.net.calls == [1] * 8
        assert predictor(images[:0]).shape == (0, 3)


def test_training_sees_whole_batches(predictor: Predictor) -> None:
    images = torch.zeros(8, 8, 8, 3, dtype=torch.uint8)
    predictor(images)  # outside inference: gradients may be wanted
    predictor.net.train()
    with torch.inference_mode():
        predictor(images)  # BatchNorm's statistics
    assert predictor.net.calls == [8, 8]

"""`fixres advise --model`: figures by hand on a network whose outputs are known, the table, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fixres.api.network import Network
from fixres.api.network_advice import as_text, network_advice
from fixres.cli.main import call
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg


class LeftOrRight(nn.Module):
    """Class 0 if the left half is brighter, class 1 if the right one is; pooled activations are the halves' means."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d((1, 2)), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(images.mean(1, keepdim=True)).flatten(1))


def picture(left: int, right: int) -> Image.Image:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = left, right
    return Image.fromarray(pixels)


def network(train_res: int = 32) -> Network:
    info = CheckpointInfo("resnet10t", {}, ("left", "right"), train_res, 48, 1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    return Network(LeftOrRight(), info, "cpu")


def test_figures_by_hand() -> None:
    images = [picture(255, 0), picture(0, 255), picture(51, 204), picture(128, 128)]
    found = network_advice(network(), images, [64], num_train=600)
    assert (found.train_res, found.num_images, [one.test_res for one in found.figures]) == (32, 4, [32, 64])
    for one in found.figures:
        # Mirrored pictures change sides; equal halves stay in class 0.
        assert one.flip_agreement == 0.25 and one.standard_error == pytest.approx((0.25 * 0.75 / 4) ** 0.5)
        expected = [1 / (1 + np.exp(-gap)) for gap in (1.0, 1.0, 0.6, 0.0)]
        assert one.confidence == pytest.approx(np.mean(expected), abs=5e-3)  # blended at the edge
        assert one.same_class == 1.0 and one.distance == pytest.approx(0.0, abs=2e-2)
        assert one.cached_minutes == pytest.approx(600 / one.images_per_second / 60)
        assert one.uncached_minutes == 2 * one.cached_minutes
    assert found.advised == 32  # as good, and cheaper


def test_a_size_that_agrees_more_is_advised() -> None:
    class Unsure(LeftOrRight):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return logits if images.shape[-1] < 64 else logits - torch.tensor([0.0, 9.0])  # always class 0

    unsure = network()
    unsure.model = Unsure()
    found = network_advice(unsure, [picture(255, 0), picture(0, 255)], [48, 64], num_train=1)
    assert [one.flip_agreement for one in found.figures] == [0.0, 0.0, 1.0] and found.advised == 64
    assert [one.same_class for one in found.figures] == [1.0, 1.0, 0.5]
    text = as_text(found)
    assert "are not accuracies" in text and "Try 64 px, and fine-tune for it if you have labels" in text


def test_the_command_takes_pictures_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import timm

    small = {"channels": [8, 8, 16, 16], "stem_width": 8}
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=3, **small)
    save_checkpoint(tmp_path / "net.pt", net, CheckpointInfo("resnet10t", small, ("a", "b", "c"), 32, 48, 0.875))
    (tmp_path / "flat").mkdir()
    for k in range(5):
        (tmp_path / "flat" / f"{k}.jpg").write_bytes(jpeg(coded_image(60, 80, k)))
    words = [str(tmp_path / "flat"), "--model", str(tmp_path / "net.pt"), "--test-res", "64", "--num-images", "4"]
    call("advise", [*words, "--num-train", "1000", "--json", "-"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["num_images"], facts["num_train"], facts["train_res"]) == (4, 1000, 32)
    assert [one["test_res"] for one in facts["figures"]] == [32, 64] and facts["figures"][0]["distance"] == 0.0
    (tmp_path / "classes").mkdir()
    (tmp_path / "flat").rename(tmp_path / "classes" / "flat")
    call("advise", [str(tmp_path / "classes"), *words[1:-2], "--stride", "16"])
    assert "5 pictures without labels; fine-tuning on 5 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--test-res", "64"], "--test-res needs a network; also give --model"),
        (["--num-train", "5"], "--num-train needs a network"),
        (["--model", "x.pt", "--config", "photos"], "omit --config, --scale, --ratio and --plot"),
        (["--model", "x.pt", "--device", "tpu"], "device='tpu'"),
        (["--model", "x.pt"], "x.pt"),
        (["--num-images", "0"], "num_images"),
    ],
)
def test_mistakes_end_in_a_line(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(coded_image(60, 80, 1)))
    with pytest.raises(InputError, match=message):
        call("advise", [str(tmp_path), *words])
    if "--model" not in words:
        with pytest.raises(InputError, match="1 pictures are too few"):
            network_advice(network(), [picture(1, 2)], [64], 1)

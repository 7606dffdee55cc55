"""Backbones: their feature maps are those inside the classifier, and their weights are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fixres
from fixres.config.transfer import BackboneConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.weights import one_line
from fixres.pipelines.spec import InputError
from fixres.transfer.feature_pyramid import chosen_backbone, open_backbone
from tests.fixres.families import FAMILIES, RESNET, Family, create


def saved(family: Family, folder: Path) -> tuple[nn.Module, Path]:
    """A classifier, and its checkpoint."""
    net = create(family)
    save_checkpoint(folder / "net.pt", net, CheckpointInfo(family.name, family.kwargs, ("a", "b"), 32, 32, 1.0))
    return net, folder / "net.pt"


def inside(net: nn.Module, names: list[str], images: Tensor) -> list[Tensor]:
    """Outputs of the classifier's modules while it classifies."""
    found: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out))
        for name in names
    ]
    net(images)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_features_are_the_classifiers_own(family: Family, tmp_path: Path) -> None:
    net, path = saved(family, tmp_path)
    indices = (-2, -1)
    backbone = open_backbone(str(path), indices).train()  # frozen BatchNorm does not change in training mode
    images = torch.randn(2, 3, family.side * 2, family.side * 2)
    if family.name.startswith("vit"):
        images = images[..., :32, :32]
        backbone.eval()
        wanted = net.forward_intermediates(images, indices=2, intermediates_only=True, norm=False)
    else:
        backbone.body.requires_grad_(False)
        wanted = inside(net, backbone.body.feature_info.module_name(), images)
        backbone.eval() if "convnext" in family.name else None
    features = backbone(images)
    assert [feature.shape[1] for feature in features] == list(backbone.channels)
    assert [images.shape[-1] // feature.shape[-1] for feature in features] == list(backbone.reductions)
    for feature, one in zip(features, wanted, strict=True):
        torch.testing.assert_close(feature, one, rtol=1e-4, atol=1e-5)


def test_weights_are_named_and_the_heads_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, path = saved(RESNET, tmp_path)
    backbone = fixres.backbone(path, out_indices=[1, 2])
    left_out = set(backbone.weights.left_out)
    assert {"fc.weight", "fc.bias"} < left_out and {name.split(".")[0] for name in left_out} == {
        "fc",
        "layer3",
        "layer4",
    }
    assert left_out | set(backbone.weights.loaded.values()) == set(net.state_dict())
    assert f"{path}: {len(backbone.weights.loaded)} tensors loaded into the backbone" in capsys.readouterr().err


@torch.no_grad()
def test_dilated_stages_see_what_the_strided_ones_see(tmp_path: Path) -> None:
    """The strides become dilations, so the dilated map has the strided one's values at every fourth cell."""
    kwargs = {"channels": [8, 16, 24, 32], "stem_width": 8, "avg_down": False}
    _, path = saved(RESNET._replace(kwargs=kwargs), tmp_path)
    images = torch.randn(1, 3, 96, 96)
    strided = open_backbone(str(path), (2, 4)).eval()
    dilated = open_backbone(str(path), (2, 4), output_stride=8).eval()
    assert dilated.reductions == (8, 8) and strided.reductions == (8, 32)
    torch.testing.assert_close(dilated(images)[0], strided(images)[0])
    torch.testing.assert_close(dilated(images)[1][..., ::4, ::4], strided(images)[1], rtol=1e-4, atol=1e-5)
    assert dilated.weights.loaded == strided.weights.loaded


def test_random_weights_frozen_stages_and_trainable_batchnorm(tmp_path: Path) -> None:
    _, path = saved(RESNET, tmp_path)
    random = open_backbone(str(path), init="random", batchnorm="trainable")
    assert random.weights.loaded == {} and any(isinstance(one, nn.BatchNorm2d) for one in random.modules())
    trained = open_backbone(str(path), (1, 2, 3, 4))
    assert not any(isinstance(one, nn.BatchNorm2d) for one in trained.modules())
    trained.freeze(2)
    frozen = {name.split(".")[1] for name, one in trained.named_parameters() if not one.requires_grad}
    learning = {name.split(".")[1] for name, one in trained.named_parameters() if one.requires_grad}
    assert frozen == {"conv1", "layer1", "layer2"} and learning == {"layer3", "layer4"}
    assert open_backbone("resnet10t", (4,), init="random").channels == (512,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_indices": (7,)}, r"out_indices=\(7,\): .*; resnet10t has stages 0 to 4, or -5 to -1"),
        ({"out_indices": (2, 1)}, r"out_indices=\(2, 1\): give increasing stage numbers, at least one"),
        ({"out_indices": (1, 1)}, "give increasing stage numbers"),
        ({"out_indices": (4, -1)}, "give increasing stage numbers"),
        ({"out_indices": (-6, 1)}, "give increasing stage numbers"),
        ({"out_indices": ()}, "give increasing stage numbers, at least one"),
        ({"output_stride": 7}, "output_stride=7 must be 8, 16 or 32"),
        ({"output_stride": 8}, "has no layer3.0.downsample.1.weight.*: a stage has as many channels"),
        ({"arch": "resnet18"}, "names its network"),
    ],
)
def test_wrong_choices_end_in_one_line(options: dict, message: str, tmp_path: Path) -> None:
    _, path = saved(RESNET, tmp_path)
    with pytest.raises(InputError, match=message) as error:
        open_backbone(str(path), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("init", ["trained", "random"])
def test_an_empty_name_ends_in_one_line(init: str) -> None:
    with pytest.raises(InputError, match="the name of the network is empty; give a file of weights"):
        fixres.backbone("", init=init)


def test_networks_without_dilation_are_named_with_the_remedy() -> None:
    options = {"out_indices": (-2, -1), "init": "random"}
    message = (
        r"cannot be built as backbone .*'output_stride'\); not every network has output_stride=8, 32 dilates nothing"
    )
    with pytest.raises(InputError, match=message):
        open_backbone("vit_tiny_patch16_224", output_stride=8, **options)
    assert open_backbone("vit_tiny_patch16_224", output_stride=32, **options).reductions == (16, 16)
    assert one_line(AssertionError()) == "AssertionError"


def test_networks_for_images_of_some_sizes_are_refused_before_the_training(tmp_path: Path) -> None:
    """Detection fills images up to multiples of 32 pixels; segmentation tests images of any size."""
    _, path = saved(next(one for one in FAMILIES if one.name.startswith("vit")), tmp_path)
    config = BackboneConfig(str(path))
    assert chosen_backbone(config, (-2, -1)).training
    with pytest.raises(
        InputError, match=r"vit_tiny_patch16_224 does not take images of 97 x 131 pixels \(Input height"
    ):
        chosen_backbone(config, (-2, -1), 32, (97, 131))

"""The head, on networks of many families."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from fixres.config.recipe import FinetuneConfig
from fixres.finetuning.trainable_layers import freeze_except, trainable_layers
from fixres.models.probe import probe_network
from fixres.pipelines.spec import InputError


def _names(net: nn.Module, resolution: int) -> tuple[str, list[str]]:
    names = {id(module): name for name, module in net.named_modules()}
    head = probe_network(net, resolution).head
    return names[id(head.classifier)], [names[id(module)] for module in head.batchnorms]


@pytest.mark.parametrize(
    ("name", "classifier", "batchnorms"),
    [
        ("resnet50", "fc", ["layer4.2.bn3"]),
        # One block a stage: the projection shortcut's BatchNorm feeds the pooling as much as the branch's.
        ("resnet14t", "fc", ["layer4.0.bn3", "layer4.0.downsample.2"]),
        ("efficientnet_b0", "classifier", ["bn2"]),
        ("regnetx_002", "head.fc", ["s4.b7.conv3.bn"]),
        ("densenet121", "classifier", ["features.norm5"]),
        # A convolution stands between the last BatchNorm and the classifier.
        ("mobilenetv3_small_050", "classifier", ["blocks.5.0.bn1"]),
        ("convnext_atto", "head.fc", []),
    ],
)
def test_head_of_timm_networks(name: str, classifier: str, batchnorms: list[str]) -> None:
    assert _names(timm.create_model(name, num_classes=3), 64) == (classifier, batchnorms)


def test_head_of_a_torchvision_network() -> None:
    assert _names(torchvision.models.resnet18(num_classes=3), 64) == ("fc", ["layer4.1.bn2"])


def test_probing_changes_nothing() -> None:
    net = timm.create_model("resnet10t", num_classes=3)
    net.layer1.eval()
    net.conv1.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    gradients = [parameter.requires_grad for parameter in net.parameters()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    probe_network(net, 64)
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == gradients
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_network_without_classifier_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="do not come from a linear layer"):
        _ = probe_network(net, 16).head


_NORMS = {"layer4.0.bn2", "layer4.0.downsample.2"}


@pytest.mark.parametrize(("which", "expected"), [("classifier", {"fc"}), ("classifier_bn", {"fc", *_NORMS})])
def test_only_the_named_layers_are_trained(which: str, expected: set[str]) -> None:
    net = timm.create_model("resnet10t", num_classes=3)
    freeze_except(net, trainable_layers(net, probe_network(net, 64), FinetuneConfig(layers=which)).modules)  # type: ignore[arg-type]
    trained = {name.rsplit(".", 1)[0] for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == expected
    in_training = {name for name, module in net.named_modules() if module.training}
    assert in_training == expected - {"fc"}

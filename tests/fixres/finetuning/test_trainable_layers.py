"""The trainable layers of a network of each family, by timm's names; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from fixres.config.recipe import FinetuneConfig
from fixres.finetuning.trainable_layers import freeze_except, trainable_layers
from fixres.models.probe import probe_network
from fixres.pipelines.spec import InputError, Loader
from tests.fixres.families import FAMILIES, PNASNET, Family, create
from tests.fixres.finetuning.on_coded import finetune_on_coded


def _parameters(net: nn.Module, names: set[str]) -> set[str]:
    """Parameters of the named modules and of all inside them."""
    return {p for p, _ in net.named_parameters() if any(p.startswith(f"{name}.") for name in names)}


def _chosen(net: nn.Module, side: int, **fields: object) -> tuple[set[str], str]:
    chosen = trainable_layers(net, probe_network(net, side), FinetuneConfig(**fields))  # type: ignore[arg-type]
    freeze_except(net, chosen.modules)
    return {name for name, p in net.named_parameters() if p.requires_grad}, chosen.why


@pytest.mark.parametrize("family", [*FAMILIES, PNASNET], ids=lambda family: family.name)
def test_trainable_layers(family: Family) -> None:
    net, side = create(family), family.side
    assert _chosen(net, side, layers="classifier")[0] == _parameters(net, {family.classifier})
    found, line = _chosen(net, side, layers="classifier_bn")
    assert found == _parameters(net, {family.classifier, *family.norms})
    assert family.word in line and "\n" not in line and all(name in line for name in family.norms)
    statistics = {n for n, m in net.named_modules() if m.training}
    assert statistics == {n for n in family.norms if isinstance(net.get_submodule(n), nn.BatchNorm2d)}
    assert _chosen(net, side, layers="paper")[0] == _parameters(net, set(family.paper))


@pytest.mark.parametrize("family", [*FAMILIES, PNASNET], ids=lambda family: family.name)
def test_last_blocks(family: Family) -> None:
    """The block and the layers defined after it: these networks define layers in the order of execution."""
    net = create(family)
    found, line = _chosen(net, family.side, layers="last_blocks", num_blocks=1)
    names = [name for name, _ in net.named_parameters()]
    first = next(k for k, name in enumerate(names) if name.startswith(f"{family.last_block}."))
    assert found == set(names[first:]) and family.last_block in line
    frozen_norms = [m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and f"{n}.weight" not in found]
    assert not any(norm.training for norm in frozen_norms)
    assert _chosen(net, family.side, layers="last_blocks", num_blocks=2)[0] > found


@pytest.mark.parametrize(
    ("net", "last", "num"),
    [
        (torchvision.models.resnet18(num_classes=2), "layer4.1", 8),
        (torchvision.models.mobilenet_v2(num_classes=2), "features.17", 17),
        (torchvision.models.efficientnet_b0(num_classes=2), "features.7.0", 16),
        (torchvision.models.convnext_tiny(num_classes=2), "features.7.2", 18),
        (timm.create_model("regnetx_002", num_classes=2), "s4.b7", 13),
        (timm.create_model("densenet121", num_classes=2), "features.denseblock4.denselayer16", 58),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_blocks_of_other_networks(net: nn.Module, last: str, num: int) -> None:
    found = probe_network(net, 64).blocks
    assert found.modules[-1] is net.get_submodule(last) and len(found.modules) == num and not found.are_cells
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_the_papers_layers_on_torchvisions_efficientnet() -> None:
    net = torchvision.models.efficientnet_b0(num_classes=2)
    assert _chosen(net, 32, layers="paper")[0] == _parameters(net, {"features.8.0", "features.8.1", "classifier.1"})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("augmentation", ["test", "test_flip"])
def test_every_family_is_finetuned(augmentation: str, family: Family, open_coded: Callable[..., Loader]) -> None:
    """Cached and not; weights of other layers and statistics of other norms stay equal to the bit."""
    net = create(family)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    config = FinetuneConfig(epochs=1, lr=0.5, augmentation=augmentation)  # type: ignore[arg-type]
    (result,), loader = finetune_on_coded(net, open_coded, config, family.side, batch_size=6)
    changed = {name.rpartition(".")[0] for name, value in net.state_dict().items()
               if not torch.equal(value, before[name])}  # fmt: skip
    assert changed == {family.classifier, *family.norms}
    assert result.num_images == 24 and not any(module.training for module in net.modules())
    # One way or the other, the images were evaluated by as many batches as there are.
    assert loader.counters.num_images == (0 if augmentation == "test" else 24)


def test_no_graph_is_kept_for_frozen_layers() -> None:
    net = create(FAMILIES[0])
    freeze_except(net, trainable_layers(net, probe_network(net, 32), FinetuneConfig()).modules)
    seen = []
    net.layer3.register_forward_hook(lambda _m, _i, output: seen.append(output.requires_grad))
    assert net(torch.zeros(2, 3, 32, 32)).requires_grad and seen == [False]


def test_more_blocks_than_exist_are_refused() -> None:
    net = create(FAMILIES[0])
    with pytest.raises(InputError, match="num_blocks=9: ResNet has 4 blocks"):
        trainable_layers(net, probe_network(net, 32), FinetuneConfig(layers="last_blocks", num_blocks=9))


def test_a_network_without_blocks_and_norms() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    probe = probe_network(net, 16)
    assert not probe.blocks.modules
    chosen = trainable_layers(net, probe, FinetuneConfig())
    assert chosen.modules == (net[-1],) and "no normalization feeds it" in chosen.why
    with pytest.raises(InputError, match="has 0 blocks"):
        trainable_layers(net, probe, FinetuneConfig(layers="last_blocks"))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"epochs": 0}, "finetune.epochs=0"),
        ({"num_blocks": -1}, "finetune.num_blocks=-1"),
        ({"jitter": 1.0}, "finetune.jitter=1.0"),
        ({"label_smoothing": -0.1}, "finetune.label_smoothing=-0.1"),
        ({"hflip": 1.5}, "hflip=1.5"),
        ({"batch_size": 0}, "finetune.batch_size=0"),
        ({"cache_memory": -1.0}, "finetune.cache_memory=-1.0"),
        ({"step_epochs": 0}, "finetune.step_epochs=0"),
    ],
)
def test_bad_settings_are_named(fields: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        FinetuneConfig(**fields)

"""Which layers FixRes trains: the classifier and the BatchNorm right before pooling, found on any network.

Names and the order of definition differ between families, and the order of execution misleads where branches join: in
a block with a projection shortcut the shortcut's BatchNorm runs last, but its sibling feeds the pooling just as much.
So the autograd graph is walked back from the logits: the first layer with weights is the classifier, and every
BatchNorm that reaches it through no other layer with weights, and feeds none, belongs to the fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipelines.spec import InputError


@dataclass(frozen=True)
class LastLayers:
    """The layers that a fix trains.

    Attributes:
        classifier: the layer that gives the logits.
        batchnorms: every BatchNorm that feeds it and no other layer with weights; empty in networks without.
    """

    classifier: nn.Module
    batchnorms: tuple[nn.Module, ...]


def last_layers(net: nn.Module, resolution: int) -> LastLayers:
    """Runs one black image of side `resolution` through `net` and walks back from its logits.

    Raises:
        InputError: the logits do not come from a linear or convolutional layer.
    """
    owners = {id(parameter): module for module in net.modules() for parameter in module.parameters(recurse=False)}
    with _differentiable(net):
        parameter = next(net.parameters())
        image = torch.zeros(1, 3, resolution, resolution, device=parameter.device, dtype=parameter.dtype)
        logits = net(image)
        heads = _nearest_layers([logits.grad_fn], owners)
        if len(heads) != 1 or not isinstance(heads[0][1], nn.Linear | nn.Conv2d):
            raise InputError(f"{type(net).__name__}: its logits come from no linear layer; there is nothing to fix")
        node, classifier = heads[0]
        below = _nearest_layers(_inputs(node), owners)
        # Identity shortcuts lead past the last block to all blocks before it; those feed other layers as well.
        earlier = _ancestors([before for found, _ in below for before in _inputs(found)])
        below = [(found, module) for found, module in below if found not in earlier]
    return LastLayers(classifier, tuple(module for _, module in below if isinstance(module, _BatchNorm)))


def freeze_all_but(net: nn.Module, layers: LastLayers, which: str) -> None:
    """Leaves gradients, and BatchNorm's batch statistics, only to the layers of the fix.

    Args:
        net: the network; all of it goes to eval mode but the BatchNorms of the fix.
        layers: its last layers.
        which: "classifier" or "classifier_bn".
    """
    net.requires_grad_(False)
    net.eval()
    layers.classifier.requires_grad_(True)
    if which == "classifier_bn":
        for batchnorm in layers.batchnorms:
            batchnorm.requires_grad_(True)
            batchnorm.train()


@contextmanager
def _differentiable(net: nn.Module) -> Iterator[None]:
    """Every parameter with gradient and eval mode everywhere inside the block; afterwards as before."""
    modes = [(module, module.training) for module in net.modules()]
    frozen = [parameter for parameter in net.parameters() if not parameter.requires_grad]
    net.requires_grad_(True)
    net.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, mode in modes:
            module.training = mode


def _inputs(node: Any) -> list[Any]:
    return [following for following, _ in node.next_functions if following is not None]


def _ancestors(nodes: list[Any]) -> set[Any]:
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            nodes.extend(_inputs(node))
    return seen


def _parameter(node: Any) -> torch.Tensor | None:
    """The parameter at the end of a chain of reshapes and casts that begins at `node`, if it is one."""
    while node is not None and not hasattr(node, "variable"):
        following = node.next_functions
        node = following[0][0] if len(following) == 1 else None
    return None if node is None else node.variable


def _nearest_layers(nodes: list[Any], owners: dict[int, nn.Module]) -> list[tuple[Any, nn.Module]]:
    """The first graph nodes with parameters on every path back from `nodes`, and the modules that own them."""
    found: list[tuple[Any, nn.Module]] = []
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        parameters = [parameter for parameter in map(_parameter, _inputs(node)) if parameter is not None]
        modules = {id(owners[id(p)]): owners[id(p)] for p in parameters if id(p) in owners}
        found.extend((node, module) for module in modules.values())
        if not parameters:
            nodes.extend(_inputs(node))
    return found

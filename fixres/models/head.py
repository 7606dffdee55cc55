"""A network's classifier and the BatchNorm right before pooling, found on any network.

Names and the order of definition differ between families, and the order of execution misleads where branches join: in
a block with a projection shortcut the shortcut's BatchNorm runs last, but its sibling feeds the pooling just as much.
So the autograd graph is walked back from the logits: the first layer with weights is the classifier, and every
normalization that reaches it through no other layer with weights, and feeds none, belongs to the fix. Where none does,
the walk goes on behind the layers that stand between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.models.probe import as_it_was, black_image
from pipelines.spec import InputError

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_MAX_BETWEEN = 8


@dataclass(frozen=True)
class LastLayers:
    """The layers that a fix trains.

    Attributes:
        classifier: the layer that gives the logits.
        norms: every normalization that feeds it, and no other layer with weights but those in `between`; empty in
            networks without.
        between: layers with weights between them and the classifier, as MobileNetV3's convolution behind the pooling.
    """

    classifier: nn.Module
    norms: tuple[nn.Module, ...]
    between: tuple[nn.Module, ...]

    @property
    def batchnorms(self) -> tuple[nn.Module, ...]:
        """Those of the norms that have statistics."""
        return tuple(norm for norm in self.norms if isinstance(norm, _BatchNorm))


def last_layers(net: nn.Module, resolution: int) -> LastLayers:
    """Runs one black image of side `resolution` through `net` and walks back from its logits.

    Raises:
        InputError: the logits do not come from a linear or convolutional layer.
    """
    owners = {id(parameter): module for module in net.modules() for parameter in module.parameters(recurse=False)}
    with as_it_was(net, gradients=True):
        logits = net(black_image(net, resolution))
        heads = _nearest_layers([logits.grad_fn], owners)
        if len(heads) != 1 or not isinstance(heads[0][1], nn.Linear | nn.Conv2d):
            raise InputError(f"{type(net).__name__}: its logits come from no linear layer; there is nothing to fix")
        below, between = _layers_below(heads[:1], owners), []
        while below and not any(is_norm(module) for _, module in below) and len(between) < _MAX_BETWEEN:
            between += [module for _, module in below]
            below = _layers_below(below, owners)
    norms = tuple(module for _, module in below if is_norm(module))
    return LastLayers(heads[0][1], norms, tuple(between) if norms else ())


def is_norm(module: nn.Module) -> bool:
    """Whether it normalizes: torch's classes, and those of timm's that are none of torch's but say so."""
    return isinstance(module, _NORMS) or "norm" in type(module).__name__.lower()


def _layers_below(layers: list[tuple[Any, nn.Module]], owners: dict[int, nn.Module]) -> list[tuple[Any, nn.Module]]:
    """The layers that feed `layers` and no others."""
    below = _nearest_layers([before for node, _ in layers for before in _inputs(node)], owners)
    # Identity shortcuts lead past the last block to all blocks before it; those feed other layers as well.
    earlier = _ancestors([before for node, _ in below for before in _inputs(node)])
    above = {id(module) for _, module in layers}  # a linear layer's own weights are among its inputs
    return [(node, module) for node, module in below if node not in earlier and id(module) not in above]


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

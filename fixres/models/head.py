"""A network's head, found on any network: the classifier and the normalizations right before pooling.

Names and the order of definition differ between families. The order of execution misleads if branches join: in a block
with a projection shortcut, the shortcut's BatchNorm runs last, but its sibling feeds the pooling just as much. So the
autograd graph is walked back from the logits. The first layer with weights is the classifier. The head's normalizations
are those that reach it through no other layer with weights, and feed no other layer. If there are none, the walk
continues behind the layers in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_MAX_BETWEEN = 8


@dataclass(frozen=True)
class Head:
    """The layers that FixRes trains by default.

    Attributes:
        classifier: the layer that gives the logits.
        norms: every normalization that feeds it, and no other layer with weights but those in `between`; empty in
            networks without.
        between: layers with weights between them and the classifier, such as MobileNetV3's convolution after pooling.
    """

    classifier: nn.Module
    norms: tuple[nn.Module, ...]
    between: tuple[nn.Module, ...]

    @property
    def batchnorms(self) -> tuple[nn.Module, ...]:
        """The norms that have statistics."""
        return tuple(norm for norm in self.norms if isinstance(norm, _BatchNorm))


def find_head(net: nn.Module, logits: Tensor) -> Head | None:
    """Walks back from `logits`, which must have a gradient; None if they do not come from a linear layer."""
    owners = {id(parameter): module for module in net.modules() for parameter in module.parameters(recurse=False)}
    last = _nearest_layers([logits.grad_fn], owners)
    if len(last) != 1 or not isinstance(last[0][1], nn.Linear | nn.Conv2d):
        return None
    below, between = _layers_below(last, owners), []
    while below and not any(is_norm(module) for _, module in below) and len(between) < _MAX_BETWEEN:
        between += [module for _, module in below]
        below = _layers_below(below, owners)
    norms = tuple(module for _, module in below if is_norm(module))
    return Head(last[0][1], norms, tuple(between) if norms else ())


def is_norm(module: nn.Module) -> bool:
    """Whether it normalizes: torch's classes, and others whose class name says so, such as timm's."""
    return isinstance(module, _NORMS) or "norm" in type(module).__name__.lower()


def _layers_below(layers: list[tuple[Any, nn.Module]], owners: dict[int, nn.Module]) -> list[tuple[Any, nn.Module]]:
    """The layers that feed `layers` and no others."""
    below = _nearest_layers([before for node, _ in layers for before in _inputs(node)], owners)
    # Identity shortcuts lead past the last block to all earlier blocks; those feed other layers as well.
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


def _parameter(node: Any) -> Tensor | None:
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

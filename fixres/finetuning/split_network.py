"""A network cut in two: the trunk, which a fix leaves as it is, and the tail, which depends on what learns.

The cut is made in a graph recorded by torch.fx. Modules in which nothing learns are recorded as one call each, so what
they do inside does not matter. The values that cross the cut are laid side by side as one row for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from fixres.models.precision import Precision


@dataclass(frozen=True)
class Split:
    """The two halves: `tail(trunk(images))` is what the network gives.

    Attributes:
        trunk: float images (B, 3, r, r) to float rows (B, F).
        tail: rows (B, F) to logits. It shares its modules with the network, with their modes.
        num_values: F.
    """

    trunk: nn.Module
    tail: nn.Module
    num_values: int


class CannotSplitError(Exception):
    """The network cannot be cut; the text is a reason that completes "because"."""


def split(net: nn.Module, learning: tuple[nn.Module, ...], images: Tensor, precision: Precision) -> Split:
    """Cuts `net` before the first modules of `learning` and checks the halves on `images`.

    Args:
        net: the network; it keeps its modes and gradients.
        learning: modules that learn.
        images: float (B, 3, r, r), at least two of them, as the network takes them; all to come must have their size.
        precision: number format.

    Raises:
        CannotSplitError: its forward cannot be recorded, or the halves do not give what it gives.

    Of the cuts found the one that fewest values cross is taken.
    """
    found: list[Split] = []
    reason = CannotSplitError("nothing was tried")
    # Looking into a module that learns as a whole finds its own pooling, or more values that cross; or it fails.
    for whole in (True, False):
        try:
            found.append(_split(net, learning, images, precision, whole))
        except CannotSplitError as error:
            reason = error
    if not found:
        raise reason
    return min(found, key=lambda halves: halves.num_values)


def _split(net: nn.Module, learning: tuple[nn.Module, ...], images: Tensor, precision: Precision, whole: bool) -> Split:
    alone = _ImagesOnly(net)
    graph = _recorded(alone, learning, whole)
    root = fx.GraphModule(alone, graph)
    crossing = _crossing(root, graph, learning)
    trunk = fx.GraphModule(root, _trunk_graph(graph, crossing))
    shapes = _shapes(trunk, images, precision)
    tail_graph = _tail_graph(graph, crossing)
    halves = Split(
        _Trunk(trunk), _Tail(fx.GraphModule(root, tail_graph), shapes), sum(math.prod(shape) for shape in shapes)
    )
    _check(net, halves, images, precision)
    return halves


class _ImagesOnly(nn.Module):
    """Calls the network with images and no other argument, so that the graph has no other input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class _Tracer(fx.Tracer):
    """Looks only into modules of which some part learns; if `whole`, not into those of which all parts do."""

    def __init__(self, learning: tuple[nn.Module, ...], whole: bool) -> None:
        super().__init__()
        self._learning, self._whole = {id(module) for module in learning}, whole

    def is_leaf_module(self, module: nn.Module, _name: str) -> bool:
        owners = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
        num_trainable = sum(id(owner) in self._learning for owner in owners)
        all_learn = num_trainable == len(owners)
        return num_trainable == 0 or id(module) in self._learning or (self._whole and all_learn)


def _recorded(alone: _ImagesOnly, learning: tuple[nn.Module, ...], whole: bool) -> fx.Graph:
    try:
        return _Tracer(learning, whole).trace(alone)
    except Exception as error:  # whatever a stranger's forward raises when it is given a stand-in for a tensor
        reason = " ".join(str(error).split())[:100]
        raise CannotSplitError(f"the forward of {type(alone.net).__name__} cannot be recorded ({reason})") from error


def _crossing(root: fx.GraphModule, graph: fx.Graph, learning: tuple[nn.Module, ...]) -> list[fx.Node]:
    """Nodes that depend on the images alone, and whose values are used by nodes that depend on what learns."""
    learns = {id(module) for module in learning}

    def of_learner(node: fx.Node) -> bool:
        if node.op == "get_attr":
            return id(root.get_submodule(str(node.target).rpartition(".")[0])) in learns
        return node.op == "call_module" and any(id(m) in learns for m in root.get_submodule(str(node.target)).modules())

    from_images = _dependents(graph, lambda node: node.op == "placeholder")
    late = _dependents(graph, of_learner)
    found = [n for n in graph.nodes if n in from_images and n not in late and any(user in late for user in n.users)]
    if not found or any(node.op == "placeholder" for node in found):
        raise CannotSplitError("what learns begins at the images")
    return found


def _dependents(graph: fx.Graph, is_origin: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """The origins, and every node that is computed from one."""
    found: set[fx.Node] = set()
    for node in graph.nodes:  # in the order of execution
        if is_origin(node) or any(before in found for before in node.all_input_nodes):
            found.add(node)
    return found


def _trunk_graph(graph: fx.Graph, crossing: list[fx.Node]) -> fx.Graph:
    trunk = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    needed = _needed(crossing, set())
    for node in graph.nodes:
        if node in needed:
            copies[node] = trunk.node_copy(node, lambda before: copies[before])
    trunk.output(tuple(copies[node] for node in crossing))
    return trunk


def _tail_graph(graph: fx.Graph, crossing: list[fx.Node]) -> fx.Graph:
    tail = fx.Graph()
    copies = {node: tail.placeholder(f"crossing_{k}") for k, node in enumerate(crossing)}
    output = next(node for node in graph.nodes if node.op == "output")
    needed = _needed([output], set(crossing))
    for node in graph.nodes:
        if node in needed:
            copies[node] = tail.node_copy(node, lambda before: copies[before])
    return tail


def _needed(wanted: list[fx.Node], given: set[fx.Node]) -> set[fx.Node]:
    """The nodes that must be evaluated to know those wanted, if those given are known."""
    needed: set[fx.Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop()
        if node not in needed and node not in given:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return needed


def _shapes(trunk: nn.Module, images: Tensor, precision: Precision) -> list[tuple[int, ...]]:
    with torch.inference_mode(), precision.autocast():
        values = trunk(images)
    for value in values:
        if not isinstance(value, Tensor) or value.ndim < 1 or value.shape[0] != len(images):
            raise CannotSplitError("a value that crosses the cut is not one for each image")
    return [tuple(value.shape[1:]) for value in values]


class _Trunk(nn.Module):
    """Lays the values that cross the cut side by side."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self._graph = graph

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([value.flatten(1) for value in self._graph(images)], dim=1)


class _Tail(nn.Module):
    """Takes the rows apart again."""

    def __init__(self, graph: nn.Module, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self._graph, self._shapes = graph, shapes

    def forward(self, rows: Tensor) -> Tensor:
        parts = rows.split([math.prod(shape) for shape in self._shapes], dim=1)
        # Copies, for the network may write into what it is given (ReLU in place).
        return self._graph(*(part.reshape(-1, *shape).clone() for part, shape in zip(parts, self._shapes, strict=True)))


def _check(net: nn.Module, halves: Split, images: Tensor, precision: Precision) -> None:
    """Compares with the network in eval mode; the graphs may have missed what depends on a value."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.inference_mode(), precision.autocast():
            for some in (images, images[:1]):  # another batch size than the recorded one, too
                expected, got = net(some).float(), halves.tail(halves.trunk(some)).float()
                scale = expected.abs().max().clamp(min=1e-6)
                if (got - expected).abs().max() > (1e-4 if precision.name == "fp32" else 5e-2) * scale:
                    raise CannotSplitError("the halves together do not give what the network gives")
    except (RuntimeError, TypeError, ValueError) as error:
        raise CannotSplitError(f"the halves do not run ({' '.join(str(error).split())[:100]})") from error
    finally:
        for module, mode in modes:
            module.training = mode

"""A network split in two: the backbone, which fine-tuning leaves frozen, and the head, which has all trainable layers.

The split point is found in a graph recorded by torch.fx. Modules without trainable layers are recorded as one call
each, so the operations inside them do not matter. All values at the split point are flattened and concatenated to one
row for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from fixres.models.precision import Precision
from fixres.models.probe import eval_mode

_TOLERANCE, _TOLERANCE_16_BITS = 1e-4, 5e-2  # of the largest logit


@dataclass(frozen=True)
class SplitNetwork:
    """`head(backbone(images))` are the network's logits.

    Attributes:
        backbone: float images (B, 3, r, r) to float rows (B, F).
        head: rows (B, F) to logits. It shares its modules with the network, with their modes.
        num_values: F.
    """

    backbone: nn.Module
    head: nn.Module
    num_values: int


class CannotSplitError(Exception):
    """The network cannot be split; the text is a reason that completes "because"."""


def split(net: nn.Module, trainable: tuple[nn.Module, ...], images: Tensor, precision: Precision) -> SplitNetwork:
    """Splits `net` before the first modules of `trainable` and compares both parts with it on `images`.

    Of the possible splits it returns the one with the fewest values at the split point. The network keeps its modes and
    gradients.

    Args:
        net: the network.
        trainable: the modules that are trained.
        images: float (B, 3, r, r), at least two, normalized; later images must have the same size.
        precision: number format.

    Raises:
        CannotSplitError: the forward cannot be recorded, or both parts together do not give the network's logits.
    """
    found: list[SplitNetwork] = []
    reason = CannotSplitError("nothing was tried")
    # Recording inside a module all of which is trained finds the pooling in it, or more values; or it fails.
    for whole in (True, False):
        try:
            found.append(_split(net, trainable, images, precision, whole))
        except CannotSplitError as error:
            reason = error
    if not found:
        raise reason
    return min(found, key=lambda parts: parts.num_values)


def _split(
    net: nn.Module, trainable: tuple[nn.Module, ...], images: Tensor, precision: Precision, whole: bool
) -> SplitNetwork:
    wrapped = _ImagesOnly(net)
    graph = _recorded(wrapped, trainable, whole)
    root = fx.GraphModule(wrapped, graph)
    split_point = _split_point(root, graph, trainable)
    backbone = fx.GraphModule(root, _backbone_graph(graph, split_point))
    shapes = _shapes(backbone, images, precision)
    head = _Head(fx.GraphModule(root, _head_graph(graph, split_point)), shapes)
    parts = SplitNetwork(_Backbone(backbone), head, sum(math.prod(shape) for shape in shapes))
    _check(net, parts, images, precision)
    return parts


class _ImagesOnly(nn.Module):
    """Calls the network with images and no other argument, so that the graph has no other input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class _Tracer(fx.Tracer):
    """Records inside modules of which a part is trainable; if `whole`, not inside those all of which is."""

    def __init__(self, trainable: tuple[nn.Module, ...], whole: bool) -> None:
        super().__init__()
        self._trainable, self._whole = {id(module) for module in trainable}, whole

    def is_leaf_module(self, module: nn.Module, _name: str) -> bool:
        owners = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
        num_trainable = sum(id(owner) in self._trainable for owner in owners)
        all_trainable = num_trainable == len(owners)
        return num_trainable == 0 or id(module) in self._trainable or (self._whole and all_trainable)


def _recorded(wrapped: _ImagesOnly, trainable: tuple[nn.Module, ...], whole: bool) -> fx.Graph:
    try:
        return _Tracer(trainable, whole).trace(wrapped)
    except Exception as error:  # any kind: the forward of an unknown network gets a placeholder for its tensor
        reason = " ".join(str(error).split())[:100]
        raise CannotSplitError(f"the forward of {type(wrapped.net).__name__} cannot be recorded ({reason})") from error


def _split_point(root: fx.GraphModule, graph: fx.Graph, trainable: tuple[nn.Module, ...]) -> list[fx.Node]:
    """Nodes that depend on the images and not on trainable layers, and whose values are used by nodes that do."""
    ids = {id(module) for module in trainable}

    def is_trainable(node: fx.Node) -> bool:
        if node.op == "get_attr":
            return id(root.get_submodule(str(node.target).rpartition(".")[0])) in ids
        return node.op == "call_module" and any(id(m) in ids for m in root.get_submodule(str(node.target)).modules())

    from_images = _dependents(graph, lambda node: node.op == "placeholder")
    in_head = _dependents(graph, is_trainable)
    found = [
        n for n in graph.nodes if n in from_images and n not in in_head and any(user in in_head for user in n.users)
    ]
    if not found or any(node.op == "placeholder" for node in found):
        raise CannotSplitError("the first layer is trainable")
    return found


def _dependents(graph: fx.Graph, is_origin: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """The origins, and every node that is computed from one."""
    found: set[fx.Node] = set()
    for node in graph.nodes:  # in the order of execution
        if is_origin(node) or any(before in found for before in node.all_input_nodes):
            found.add(node)
    return found


def _backbone_graph(graph: fx.Graph, split_point: list[fx.Node]) -> fx.Graph:
    backbone = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    _copy_needed(graph, split_point, backbone, copies)
    backbone.output(tuple(copies[node] for node in split_point))
    return backbone


def _head_graph(graph: fx.Graph, split_point: list[fx.Node]) -> fx.Graph:
    head = fx.Graph()
    copies = {node: head.placeholder(f"split_{k}") for k, node in enumerate(split_point)}
    output = next(node for node in graph.nodes if node.op == "output")
    _copy_needed(graph, [output], head, copies)
    return head


def _copy_needed(graph: fx.Graph, wanted: list[fx.Node], to: fx.Graph, copies: dict[fx.Node, fx.Node]) -> None:
    """Copies to another graph all nodes needed to compute `wanted`, except those that are in `copies`."""
    needed: set[fx.Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop()
        if node not in needed and node not in copies:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    for node in graph.nodes:
        if node in needed:
            copies[node] = to.node_copy(node, lambda before: copies[before])


def _shapes(backbone: nn.Module, images: Tensor, precision: Precision) -> list[tuple[int, ...]]:
    with torch.inference_mode(), precision.autocast():
        values = backbone(images)
    for value in values:
        if not isinstance(value, Tensor) or value.ndim < 1 or value.shape[0] != len(images):
            raise CannotSplitError("a value at the split point does not have one row for each image")
    return [tuple(value.shape[1:]) for value in values]


class _Backbone(nn.Module):
    """Concatenates the values at the split point."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self._graph = graph

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([value.flatten(1) for value in self._graph(images)], dim=1)


class _Head(nn.Module):
    """Takes the rows apart again."""

    def __init__(self, graph: nn.Module, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self._graph, self._shapes = graph, shapes

    def forward(self, rows: Tensor) -> Tensor:
        parts = rows.split([math.prod(shape) for shape in self._shapes], dim=1)
        # Copies, because the network may write into its input (ReLU in place).
        return self._graph(*(part.reshape(-1, *shape).clone() for part, shape in zip(parts, self._shapes, strict=True)))


def _check(net: nn.Module, parts: SplitNetwork, images: Tensor, precision: Precision) -> None:
    """Compares with the network in eval mode: a recorded graph misses branches that depend on a value."""
    tolerance = _TOLERANCE if precision.name == "fp32" else _TOLERANCE_16_BITS
    try:
        with eval_mode(net), torch.inference_mode(), precision.autocast():
            for some in (images, images[:1]):  # the second has another batch size than the recorded one
                expected, got = net(some).float(), parts.head(parts.backbone(some)).float()
                scale = expected.abs().max().clamp(min=1e-6)
                if (got - expected).abs().max() > tolerance * scale:
                    raise CannotSplitError("backbone and head together do not give what the network gives")
    except (RuntimeError, TypeError, ValueError) as error:
        raise CannotSplitError(f"the split network does not run ({' '.join(str(error).split())[:100]})") from error

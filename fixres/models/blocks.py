"""The order in which a network's modules run, and its blocks: found from the calls of a forward pass, not from names.

Blocks are modules with several layers of weights that run in a chain: the output of one is the input of the next.
Residual blocks, transformer blocks and cells are examples. If chains are nested, as blocks inside stages are, the
innermost chain counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Call:
    """One call of a module: the tensors among its arguments, and those that it returned.

    Attributes:
        start: its number in the order in which calls begin.
        parent: number of the call of a composite module inside which it was made; -1 for the network itself.
        num_inputs: number of arguments that are tensors; a list of tensors does not count.
    """

    module: nn.Module
    start: int
    parent: int
    inputs: list[Tensor]
    num_inputs: int
    outputs: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Blocks:
    """A network's blocks.

    Attributes:
        modules: in the order in which they run; empty in unusual networks.
        starts: for each module of the network that runs, the number of its first call; the key is its id.
        are_cells: whether they take the outputs of two blocks before them, as NASNet's and PNASNet's cells do.
    """

    modules: tuple[nn.Module, ...]
    starts: dict[int, int]
    are_cells: bool

    def after(self, num_blocks: int) -> set[int]:
        """Ids of the modules that run from the start of the last `num_blocks` blocks on; 0: after the last block."""
        if num_blocks:
            first = self.starts[id(self.modules[-num_blocks])]
        else:
            first = 1 + max(self.starts.get(id(module), 0) for module in self.modules[-1].modules())
        return {module for module, start in self.starts.items() if start >= first}


def find_blocks(net: nn.Module, calls: list[Call]) -> Blocks:
    """The blocks of `net`, from the calls of one forward pass."""
    starts: dict[int, int] = {}
    for call in calls:
        starts.setdefault(id(call.module), call.start)
    candidates = [call for call in calls if call.module is not net and _is_composite(call.module)]
    chained = _chained(candidates) or _repeated(candidates)
    outer = {call.parent for call in chained}
    innermost = [call for call in chained if call.start not in outer]
    cells = bool(innermost) and innermost[-1].num_inputs > 1
    return Blocks(tuple(dict.fromkeys(call.module for call in innermost)), starts, cells)


def _chained(calls: list[Call]) -> list[Call]:
    """Calls with the same parent, one of which takes the output of another, in order.

    Only if at least two of one class follow each other: two layers in a row inside a cell are not blocks.
    """
    givers = {(call.parent, id(tensor)): call for call in calls for tensor in call.outputs}
    links = [
        (givers[key], call) for call in calls for tensor in call.inputs if (key := (call.parent, id(tensor))) in givers
    ]
    links = [(giver, call) for giver, call in links if giver.start < call.start]
    parents = {call.parent for giver, call in links if type(giver.module) is type(call.module)}
    found = {one.start: one for link in links for one in link if one.parent in parents}
    return [found[start] for start in sorted(found)]


def _repeated(calls: list[Call]) -> list[Call]:
    """The outermost calls of one class that occurs more than once; for networks without chains, such as DenseNet."""
    for call in calls:
        same = [other for other in calls if type(other.module) is type(call.module)]
        if len(same) > 1:
            return [one for one in same if not any(o is not one and one.module in o.module.modules() for o in same)]
    return []


def _is_composite(module: nn.Module) -> bool:
    """Whether it has several layers of weights (matrices or kernels) and a forward of its own."""
    if isinstance(module, _CONTAINERS):
        return False
    return sum(any(p.ndim > 1 for p in part.parameters(recurse=False)) for part in module.modules()) > 1


@contextmanager
def recorded_calls(net: nn.Module) -> Iterator[list[Call]]:
    """Records every call of a module inside the block. The records keep the tensors, so that ids stay unique."""
    calls: list[Call] = []
    running: list[Call] = []
    composite = {id(module) for module in net.modules() if module is not net and _is_composite(module)}

    def begin(module: nn.Module, arguments: tuple) -> None:
        parent = next((call.start for call in reversed(running) if id(call.module) in composite), -1)
        num_inputs = sum(isinstance(argument, Tensor) for argument in arguments)
        running.append(Call(module, len(calls), parent, _tensors(arguments), num_inputs))
        calls.append(running[-1])

    def end(_module: nn.Module, _arguments: tuple, output: Any) -> None:
        running.pop().outputs = _tensors(output)

    handles = [h for m in net.modules() for h in (m.register_forward_pre_hook(begin), m.register_forward_hook(end))]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [t for value in values for t in _tensors(value)] if isinstance(values, list | tuple) else []

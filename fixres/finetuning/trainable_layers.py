"""The layers that FixRes fine-tuning trains: from a name such as "classifier_bn" to modules of any network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.config.recipe import FinetuneConfig
from fixres.models.blocks import Blocks
from fixres.models.head import Head, is_norm
from fixres.models.probe import NetworkProbe
from fixres.pipelines.spec import InputError

_CELLS = 3  # the published code of FixRes trains PNASNet's cells 9, 10 and 11


@dataclass(frozen=True)
class TrainableLayers:
    """The modules whose parameters are trained, and whose BatchNorm statistics follow the batches.

    Attributes:
        modules: each owns parameters; modules inside them do not count.
        why: one line for the user: which layers, and why others than asked for.
    """

    modules: tuple[nn.Module, ...]
    why: str


def trainable_layers(net: nn.Module, probe: NetworkProbe, config: FinetuneConfig) -> TrainableLayers:
    """The layers of `net` that `config.layers` means. InputError without classifier, or with too few blocks."""
    head, blocks = probe.head, probe.blocks
    if config.layers == "paper":
        return _as_in_the_papers(net, head, blocks)
    if config.layers == "all":
        owners = (module for module in net.modules() if next(module.parameters(recurse=False), None) is not None)
        return TrainableLayers(tuple(owners), "trainable layers: all")
    if config.layers == "last_blocks":
        return _last_blocks(net, head, blocks, config.num_blocks)
    if config.layers == "classifier":
        return TrainableLayers((head.classifier,), f"trainable layers: {_name(net, head.classifier)}")
    return _with_norms(net, head)


def freeze_except(net: nn.Module, modules: Iterable[nn.Module]) -> None:
    """Leaves gradients, and batch statistics, only to `modules`; all other modules are in eval mode."""
    net.requires_grad_(False)
    net.eval()
    for module in modules:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
        if isinstance(module, _BatchNorm):
            module.training = True  # not train(), which would reach what timm keeps inside, such as drop-out


def _with_norms(net: nn.Module, head: Head) -> TrainableLayers:
    modules = (*head.norms, head.classifier)
    line = f"trainable layers: {_names(net, modules)}"
    if not head.norms:
        line += " only, because no normalization feeds it"
    elif len(head.batchnorms) < len(head.norms):
        kind = type(head.norms[0]).__name__
        line += f"; there is no BatchNorm before the classifier, and {kind} has weights but no statistics"
    if head.between:
        line += f"; {_names(net, head.between)} between them stays frozen"
    return TrainableLayers(modules, line)


def _last_blocks(net: nn.Module, head: Head, blocks: Blocks, num_blocks: int) -> TrainableLayers:
    if not blocks.modules or num_blocks > len(blocks.modules):
        raise InputError(
            f"finetune.num_blocks={num_blocks}: {type(net).__name__} has {len(blocks.modules)} blocks; "
            "choose fewer, or finetune.layers=classifier_bn"
        )
    ids = blocks.after(num_blocks) | {id(head.classifier)}
    modules = tuple(m for m in net.modules() if id(m) in ids and next(m.parameters(recurse=False), None) is not None)
    chosen = blocks.modules[-num_blocks:] if num_blocks else ()
    names = _names(net, chosen) or f"those after the last block {_name(net, blocks.modules[-1])}"
    rest = [m for m in modules if not any(part is m for block in chosen for part in block.modules())]
    return TrainableLayers(modules, f"trainable layers: {names}; {_names(net, rest)}")


def _as_in_the_papers(net: nn.Module, head: Head, blocks: Blocks) -> TrainableLayers:
    """Cells: the last three (PNASNet). A convolution after the last block: also that (EfficientNet). Else BatchNorm."""
    if blocks.modules and blocks.are_cells:
        return _last_blocks(net, head, blocks, min(_CELLS, len(blocks.modules)))
    if blocks.modules:
        after_blocks = _last_blocks(net, head, blocks, 0)
        if any(module is not head.classifier and not is_norm(module) for module in after_blocks.modules):
            return after_blocks
    return _with_norms(net, head)


def _names(net: nn.Module, modules: Iterable[nn.Module]) -> str:
    return ", ".join(_name(net, module) for module in modules)


def _name(net: nn.Module, module: nn.Module) -> str:
    return next(name for name, candidate in net.named_modules() if candidate is module)

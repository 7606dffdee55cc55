"""What a fix trains: from a name such as "classifier_bn" to modules of any network, and a line that says which."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.config.recipe import FinetuneConfig
from fixres.models.blocks import blocks
from fixres.models.head import LastLayers, is_norm, last_layers
from pipelines.spec import InputError

_CELLS = 3  # the published code of FixRes trains PNASNet's cells 9, 10 and 11


@dataclass(frozen=True)
class TrainableLayers:
    """The modules whose own parameters learn, and whose BatchNorm statistics follow the batches.

    Attributes:
        modules: without those inside them; each owns parameters.
        why: one line for the user: what was chosen, and what instead of what.
    """

    modules: tuple[nn.Module, ...]
    why: str


def trainable_layers(net: nn.Module, resolution: int, config: FinetuneConfig) -> TrainableLayers:
    """What `config.layers` means on `net`.

    Args:
        net: a classifier.
        resolution: side in pixels of the image that is run through it to find its layers.
        config: layers and num_blocks.

    Raises:
        InputError: no classifier, or not as many blocks.
    """
    last = last_layers(net, resolution)
    if config.layers == "paper":
        return _as_in_the_papers(net, resolution, last)
    if config.layers == "last_blocks":
        return _last_blocks(net, resolution, last, config.num_blocks)
    if config.layers == "classifier":
        return TrainableLayers((last.classifier,), f"learning: {_name(net, last.classifier)}")
    return _with_norms(net, last)


def freeze_except(net: nn.Module, modules: tuple[nn.Module, ...]) -> None:
    """Leaves gradients, and batch statistics, only to `modules`; all else goes to eval mode."""
    net.requires_grad_(False)
    net.eval()
    for module in modules:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
        if isinstance(module, _BatchNorm):
            module.training = True  # not train(), which would reach what timm keeps inside, such as drop-out


def _with_norms(net: nn.Module, last: LastLayers) -> TrainableLayers:
    modules = (*last.norms, last.classifier)
    line = f"learning: {_names(net, modules)}"
    if not last.norms:
        line += " only, for no normalization feeds it"
    elif len(last.batchnorms) < len(last.norms):
        kind = type(last.norms[0]).__name__
        line += f"; there is no BatchNorm before the classifier, and {kind} has weights to learn but no statistics"
    if last.between:
        line += f"; {_names(net, last.between)} between them stays as it is"
    return TrainableLayers(modules, line)


def _last_blocks(net: nn.Module, resolution: int, last: LastLayers, num_blocks: int) -> TrainableLayers:
    found = blocks(net, resolution)
    if not found.modules or num_blocks > len(found.modules):
        raise InputError(
            f"finetune.num_blocks={num_blocks}: {type(net).__name__} shows {len(found.modules)} blocks; "
            "choose fewer, or finetune.layers=classifier_bn"
        )
    ids = found.after(num_blocks) | {id(last.classifier)}
    modules = tuple(m for m in net.modules() if id(m) in ids and next(m.parameters(recurse=False), None) is not None)
    chosen = found.modules[-num_blocks:] if num_blocks else ()
    names = _names(net, chosen) or f"what follows the last block {_name(net, found.modules[-1])}"
    rest = [m for m in modules if not any(part is m for block in chosen for part in block.modules())]
    return TrainableLayers(modules, f"learning: {names}; {_names(net, rest)}")


def _as_in_the_papers(net: nn.Module, resolution: int, last: LastLayers) -> TrainableLayers:
    """Cells: the last three (PNASNet). A convolution after the last block: it, too (EfficientNet). Else BatchNorm."""
    found = blocks(net, resolution)
    if found.modules and found.are_cells:
        return _last_blocks(net, resolution, last, min(_CELLS, len(found.modules)))
    if found.modules:
        head = _last_blocks(net, resolution, last, 0)
        if any(module is not last.classifier and not is_norm(module) for module in head.modules):
            return head
    return _with_norms(net, last)


def _names(net: nn.Module, modules: tuple[nn.Module, ...] | list[nn.Module]) -> str:
    return ", ".join(_name(net, module) for module in modules)


def _name(net: nn.Module, module: nn.Module) -> str:
    return next(name for name, candidate in net.named_modules() if candidate is module)

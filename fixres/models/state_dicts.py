"""Fits tensors of a weight file to a network: translates names, compares, loads."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from fixres.models.weights import WeightFile
from pipelines.spec import InputError

_NUM_SHOWN = 3
_log = logging.getLogger(__name__)
# What timm's translations raise if a file lacks the names or shapes that they expect.
_TRANSLATION_ERRORS = (LookupError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError)


@dataclass(frozen=True)
class Mismatch:
    """Names in which a file and a network differ.

    Attributes:
        missing: in the network, not in the file.
        unexpected: in the file, not in the network.
        shapes: in both, with the shapes in file and network.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.shapes))
        return "; ".join(f"{len(names)} {kind} ({shortened(names)})" for kind, names in kinds if names)


def find_mismatch(net: nn.Module, state_dict: Mapping[str, Tensor]) -> Mismatch:
    """Names and shapes that differ, except BatchNorm's counters of steps, which old files lack."""
    wanted = net.state_dict()
    missing = tuple(name for name in wanted if name not in state_dict and not name.endswith("num_batches_tracked"))
    unexpected = tuple(name for name in state_dict if name not in wanted)
    shapes = tuple(
        f"{name} {tuple(value.shape)} for {tuple(wanted[name].shape)}"
        for name, value in state_dict.items()
        if name in wanted and value.shape != wanted[name].shape
    )
    return Mismatch(missing, unexpected, shapes)


def translated(weights: WeightFile, net: nn.Module) -> dict[str, Tensor]:
    """The file's tensors under timm's names; timm knows the original names of many networks."""
    state_dict = dict(weights.state_dict)
    translate = _translation(net)
    if translate is None or not find_mismatch(net, state_dict):
        return state_dict
    arguments = (dict(state_dict), net)[: len(signature(translate).parameters)]
    try:
        result = translate(*arguments)
    except _TRANSLATION_ERRORS:
        return state_dict
    return dict(result) if isinstance(result, Mapping) else state_dict


def _translation(net: nn.Module) -> Callable[..., Any] | None:
    """timm's translation for the network's family.

    create_model applies it, but does not return the translated tensors, which are needed to name what does not fit.
    `checkpoint_filter_fn` is the public name in timm's modules; vgg and regnet only have the private one.
    """
    module = sys.modules[type(net).__module__]
    return getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)


def classifier_name(net: nn.Module) -> str:
    """The name of the classifier's module."""
    classifier = net.get_classifier()
    return next((name for name, module in net.named_modules() if module is classifier), "fc")


def without_classifier(
    weights: WeightFile, state_dict: dict[str, Tensor], classifier: str, num_classes: int, new_classifier: bool
) -> dict[str, Tensor]:
    """The tensors without those of a classifier for another number of classes.

    Args:
        weights: the file.
        state_dict: its tensors under timm's names.
        classifier: name of the classifier's module.
        num_classes: classes of the data.
        new_classifier: whether the classifier may be left out.

    Raises:
        InputError: it may not.
    """
    rows = len(state_dict[f"{classifier}.weight"])
    if not new_classifier:
        raise InputError(
            f"{weights.path}: wrong classifier size, {rows} classes for the data's {num_classes}; test it on the "
            "classes it was trained on"
        )
    _log.warning(
        "%s: a new classifier for %d classes instead of %d, with random weights", weights.path, num_classes, rows
    )
    return {key: value for key, value in state_dict.items() if not key.startswith(f"{classifier}.")}


def load_weights(
    weights: WeightFile, net: nn.Module, name: str, state_dict: dict[str, Tensor], optional: str | None
) -> None:
    """Loads all tensors into the network.

    Args:
        weights: the file.
        net: the network.
        name: its timm name.
        state_dict: the file's tensors under timm's names.
        optional: prefix of names that may be missing, those of the classifier; None if none may.

    Raises:
        InputError: names or shapes that do not fit, sparse or quantized tensors, values that are not finite.
    """
    differences = find_mismatch(net, state_dict)
    if optional is not None:
        missing = tuple(one for one in differences.missing if not one.startswith(optional))
        differences = replace(differences, missing=missing)
    if differences:
        raise InputError(
            f"{weights.path}: {weights.kind} that do not fit {name}: {differences}; name the right network with --arch"
        )
    if not all(value.layout == torch.strided and not value.is_quantized for value in state_dict.values()):
        raise InputError(f"{weights.path}: sparse or quantized weights; give plain ones")
    bad = next((key for key, value in state_dict.items() if not bool(torch.isfinite(value).all())), None)
    if bad is not None:
        raise InputError(f"{weights.path}: {bad} is not finite; the training that made it had failed")
    net.load_state_dict(state_dict, strict=False)


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")

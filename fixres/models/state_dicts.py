"""Fits tensors of a weight file to a network: translates names, compares, loads."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from inspect import signature

import torch
from torch import Tensor, nn

from fixres.models.weights import WeightFile
from fixres.pipelines.spec import InputError

_NUM_SHOWN = 3
_log = logging.getLogger(__name__)
# What timm's translations raise if a file lacks the names or shapes that they expect.
_TRANSLATION_ERRORS = (LookupError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError)


def differences(net: nn.Module, state_dict: Mapping[str, Tensor], optional: str | None = None) -> str:
    """Names and shapes in which a file and a network differ, for a message; empty if they fit.

    Names with the prefix `optional` may be missing, and BatchNorm's counters of steps, which old files lack.
    """
    wanted = net.state_dict()
    missing = [name for name in wanted if name not in state_dict and not name.endswith("num_batches_tracked")]
    kinds = {
        "missing": [name for name in missing if optional is None or not name.startswith(optional)],
        "unexpected": [name for name in state_dict if name not in wanted],
        "of another shape": [
            f"{name} {tuple(value.shape)} for {tuple(wanted[name].shape)}"
            for name, value in state_dict.items()
            if name in wanted and value.shape != wanted[name].shape
        ],
    }
    return "; ".join(f"{len(names)} {kind} ({shortened(names)})" for kind, names in kinds.items() if names)


def translated(weights: WeightFile, net: nn.Module) -> dict[str, Tensor]:
    """The file's tensors under timm's names; timm knows the original names of many networks.

    create_model applies the same translations, but does not return the tensors, which are needed to name what does not
    fit. `checkpoint_filter_fn` is the public name in timm's modules; vgg and regnet only have the private one.
    """
    state_dict, module = dict(weights.state_dict), sys.modules[type(net).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if translate is None or not differences(net, state_dict):
        return state_dict
    arguments = (dict(state_dict), net)[: len(signature(translate).parameters)]
    try:
        result = translate(*arguments)
    except _TRANSLATION_ERRORS:
        return state_dict
    return dict(result) if isinstance(result, Mapping) else state_dict


def classifier_name(net: nn.Module) -> str:
    """The name of the classifier's module."""
    classifier = net.get_classifier()
    return next((name for name, module in net.named_modules() if module is classifier), "fc")


def load_weights(
    weights: WeightFile, net: nn.Module, name: str, state_dict: dict[str, Tensor], optional: str | None
) -> None:
    """Loads the file's tensors, which have timm's names, into the network `name`; see `differences` for `optional`.

    Raises:
        InputError: names or shapes that do not fit, sparse or quantized tensors, values that are not finite.
    """
    if found := differences(net, state_dict, optional):
        raise InputError(
            f"{weights.path}: {weights.kind} that do not fit {name}: {found}; name the right network with --arch"
        )
    if not all(value.layout == torch.strided and not value.is_quantized for value in state_dict.values()):
        raise InputError(f"{weights.path}: sparse or quantized weights; give plain ones")
    bad = next((key for key, value in state_dict.items() if not bool(torch.isfinite(value).all())), None)
    if bad is not None:
        raise InputError(f"{weights.path}: {bad} is not finite; the training that made it had failed")
    net.load_state_dict(state_dict, strict=False)


def weights_digest(*modules: nn.Module, prefix: str = "") -> str:
    """SHA-256 of `prefix` and of the names, types, shapes and values of all weights and buffers."""
    digest = hashlib.sha256(prefix.encode())
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")

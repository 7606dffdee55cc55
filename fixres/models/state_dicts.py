"""Fits tensors of a weight file to a network: translates names, compares, loads."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor, nn

from fixres.models.weights import WeightFile
from fixres.pipelines.spec import InputError

_NUM_SHOWN, _MAX_SHOWN = 3, 80  # names, characters of each
_MAX_PARTS = 3  # of the prefix before a network's names
_ALMOST = 0.9
_RGB = 3
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
    """The file's tensors under timm's names, without the prefix that a program put before all of them.

    timm knows the original names of many networks. create_model applies the same translations, but does not return the
    tensors, which are needed to name what does not fit. `checkpoint_filter_fn` is the public name in timm's modules;
    vgg and regnet only have the private one.
    """
    state_dict, module = _without_prefix(weights, net), sys.modules[type(net).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if translate is None or not differences(net, state_dict):
        return state_dict
    arguments = (dict(state_dict), net)[: len(signature(translate).parameters)]
    try:
        result = translate(*arguments)
    except _TRANSLATION_ERRORS:
        return state_dict
    return dict(result) if isinstance(result, Mapping) else state_dict


def _without_prefix(weights: WeightFile, net: nn.Module) -> dict[str, Tensor]:
    """The tensors of the network, if the file names it as a part of something larger: "model.conv1.weight".

    Lightning's modules hold the network beside losses and metrics, which are left out.

    Raises:
        InputError: the file has several such networks, for example a student and its teacher.
    """
    state_dict, wanted = weights.state_dict, set(net.state_dict())
    (prefix, most), (second, next_most) = _prefixes(state_dict, wanted)
    if most < len(wanted) / 2:  # perhaps names that timm translates
        prefix = _common_prefix(list(state_dict))
    elif next_most > _ALMOST * most:
        names = " and ".join(one or "without a prefix" for one in (prefix, second))
        raise InputError(f"{weights.path}: holds several networks, {names}; save the state_dict() of one of them")
    found = {name.removeprefix(f"{prefix}."): value for name, value in state_dict.items()
             if not prefix or name.startswith(f"{prefix}.")}  # fmt: skip
    others = [name for name in state_dict if prefix and not name.startswith(f"{prefix}.")]
    changes = [weights.changes] if weights.changes else []
    changes += [f"only what is under '{prefix}.'"] if prefix else []
    changes += [f"leaving out {len(others)} ({shortened(others)})"] if others else []
    if changes:
        _log.warning("%s: reads its weights %s", weights.path, ", ".join(changes))
    return found


def _prefixes(names: Iterable[str], wanted: set[str]) -> list[tuple[str, int]]:
    """The two prefixes, of up to three parts, after which the most of the wanted names occur, and how many."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".", _MAX_PARTS)
        for k in range(len(parts)):
            if ".".join(parts[k:]) in wanted:
                counts[".".join(parts[:k])] += 1
    return [*counts.most_common(2), ("", 0), ("", 0)][:2]


def _common_prefix(names: list[str]) -> str:
    """The modules that all names begin with; empty for a single name."""
    if len(names) < 2:
        return ""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns))


def classifier_name(net: nn.Module) -> str:
    """The name of the classifier's module."""
    classifier = net.get_classifier()
    return next((name for name, module in net.named_modules() if module is classifier), "fc")


def load_weights(
    weights: WeightFile, net: nn.Module, name: str, state_dict: dict[str, Tensor], optional: str | None
) -> None:
    """Loads the file's tensors, which have timm's names, into the network `name`; see `differences` for `optional`.

    Raises:
        InputError: names or shapes that do not fit, whole numbers as weights, values that are not finite.
    """
    if found := differences(net, state_dict, optional):
        advice = _advice(net, state_dict, optional)
        raise InputError(f"{weights.path}: {weights.kind} that do not fit {name}: {found}; {advice}")
    net.load_state_dict(state_dict, strict=False)
    check_values(weights.path, net, state_dict)


def _advice(net: nn.Module, state_dict: Mapping[str, Tensor], optional: str | None) -> str:
    """What would help if a file and a network differ."""
    wanted = net.state_dict()
    for name in wanted.keys() & state_dict.keys():
        given, needed = state_dict[name].shape, wanted[name].shape
        if len(given) == len(needed) == 4 and given[1] != needed[1] == _RGB and given[2:] == needed[2:]:
            return f"it takes images of {given[1]} channels, but all images are RGB here, also gray ones"
    modules = {name.partition(".")[0] for name in wanted}
    own = {name: value for name, value in state_dict.items() if name.partition(".")[0] in modules}
    if not differences(net, own, optional):
        return "save the state_dict() of the network alone"
    return "name the right network with --arch, or its arguments with --model-kwargs"


def check_values(path: Path, net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raises InputError if a network that has got these weights of a file cannot work with them."""
    for name, value in net.state_dict().items():
        if value.is_floating_point() and name in state_dict and not state_dict[name].is_floating_point():
            raise InputError(f"{path}: {name} has whole numbers ({state_dict[name].dtype}); give weights in float32")
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{path}: {name} is not finite; the training that made it had failed")
        if name.endswith("running_var") and bool((value < 0).any()):
            raise InputError(f"{path}: {name} is negative, which no variance is; the file is damaged")


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
    return ", ".join(name[:_MAX_SHOWN] for name in names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")

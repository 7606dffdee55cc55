"""Opens any classifier of timm's library to test or fine-tune it: by name, or from a file of any origin.

    net, info, normalize, outputs = open_network("runs/demo/fast/finetuned.pt", classes)
    net, info, normalize, outputs = open_network("FixResNet50.pth", classes, arch="resnet50.tv_in1k")

What the user should know about pretrained weights (the assumed transform, resized layers) is logged in a line.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fixres.config.jobs import NetworkChoice
from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, is_checkpoint, network_from, refuse_other_tasks
from fixres.models.classes import Matched, Names, Outputs, match_classes, output_names
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import choose_device, choose_precision
from fixres.models.predictor import Predictor
from fixres.models.state_dicts import classifier_name, load_weights, translated
from fixres.models.timm_folder import described, recorded_transform, weights_in
from fixres.models.weights import WeightFile, read_weights, with_its_checksum
from fixres.models.zoo import ZOO
from fixres.pipelines.spec import InputError, Interpolation

_SUFFIXES = (".pt", ".pth", ".bin", ".tar", ".safetensors", ".ckpt")
_log = logging.getLogger(__name__)


class OpenedNetwork(NamedTuple):
    """A network on the CPU, in eval mode and channels_last, with its normalization of the loader's batches.

    Attributes:
        info: its classes are the names of all outputs.
        outputs: those of the data's classes; None if they are all outputs in the data's order.
    """

    net: nn.Module
    info: CheckpointInfo
    normalize: Normalize
    outputs: Outputs | None = None


class OpenedForJob(NamedTuple):
    """The network of a job on its device, and its description."""

    predictor: Predictor
    info: CheckpointInfo


def open_chosen(
    choice: NetworkChoice, classes: Sequence[str] | None, names: Names | None = None, new_classifier: bool = False
) -> OpenedForJob:
    """The network of a job on its device, for data with these classes; see `open_network`.

    `names` are those that `choice.classes` stands for.
    """
    device = choose_device(choice.device)
    choose_precision(choice.precision, device)  # refuses it before the weights are read
    net, info, normalize, outputs = open_network(
        choice.weights,
        classes,
        names=names,
        arch=choice.arch,
        model_kwargs=choice.model_kwargs,
        crop_pct=choice.crop_pct,
        interpolation=choice.interpolation,
        new_classifier=new_classifier,
    )
    precision = choose_precision(choice.precision, device, net)
    outputs = None if outputs is None else outputs.to(device)
    predictor = Predictor(net.to(device), normalize.to(device), precision, outputs)
    return OpenedForJob(predictor, info)


def open_network(
    model: str,
    classes: Sequence[str] | None = None,
    *,
    names: Names | None = None,
    arch: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    crop_pct: float | None = None,
    interpolation: Interpolation | None = None,
    new_classifier: bool = False,
) -> OpenedNetwork:
    """Opens a network with its weights; nothing is downloaded. `NetworkChoice` explains the other arguments.

    There are many parameters, because files of other origins lack so much; all but one have defaults.

    Args:
        model: a file of weights, or timm's name of weights in the local cache, such as resnet50.tv_in1k.
        classes: class names of the data in label order, which are found among the network's by name; None takes all of
            the network's.
        names: names of the network's outputs in order, instead of those in the file; see `match_classes`.
        new_classifier: replace a classifier for other classes by one with random weights.

    Raises:
        InputError: no such file or name, weights that do not fit the network, classes that it does not know.
    """
    weights = find_weights(model, arch, model_kwargs)
    if is_checkpoint(weights):
        opened = _open_checkpoint(weights, classes, names, new_classifier)
        if arch not in (None, opened.info.model) or model_kwargs:
            raise InputError(f"{model} names its network, {opened.info.model}; omit --arch and --model-kwargs")
    else:
        arch = arch or weights.arch or ""
        opened = _open_pretrained(weights, arch, dict(model_kwargs or {}), classes, names, new_classifier)
    given = {"crop_pct": crop_pct, "interpolation": interpolation}
    given = {name: value for name, value in given.items() if value is not None}
    return opened._replace(info=replace(opened.info, **given)) if given else opened


def find_weights(model: str, arch: str | None = None, model_kwargs: Mapping[str, Any] | None = None) -> WeightFile:
    """The weights that `open_network` opens with these arguments; `arch` of the result names their network.

    Raises:
        InputError: no such weights, those of another task, or a network without a name.
    """
    if not model:
        raise InputError("the name of the network is empty; give a file of weights, or timm's name of cached weights")
    if not names_file(model):
        return replace(read_weights(cached_weights(_timm_name(model)[0])), arch=model)
    weights = read_weights(weights_in(Path(model)))
    refuse_other_tasks(weights)
    weights = described(weights) if arch is None and not model_kwargs else weights
    if not arch and weights.arch is None and not is_checkpoint(weights):
        raise InputError(f"{model}: the file does not name its network; add --arch with timm's name, such as resnet50")
    return weights


def names_file(model: str) -> bool:
    """Whether `model` is a path, existing or not, and not a name of timm's."""
    return os.path.exists(model) or os.sep in model or Path(model).suffix in _SUFFIXES


def cached_weights(name: str) -> Path:
    """The file of timm's weights `name` in the caches of Hugging Face and torch.

    Raises:
        InputError: timm has no such weights, they are not in the cache, or the file there is another one.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if config is None:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")[:5]
        raise InputError(f"timm has no weights {name}; it has {', '.join(tags) or 'none of that network'}")
    for file in ("model.safetensors", "pytorch_model.bin") if config.hf_hub_id else ():
        found = try_to_load_from_cache(config.hf_hub_id, config.hf_hub_filename or file)
        if isinstance(found, str):
            return with_its_checksum(Path(found))
    if config.url:
        found = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(config.url)
        if found.is_file():
            return with_its_checksum(found, needed=True)
    raise InputError(
        f"the weights of {name} are not in the local cache; download them once with an internet connection: "
        f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\", or give a file"
    )


def _open_checkpoint(
    weights: WeightFile, classes: Sequence[str] | None, names: Names | None, new_classifier: bool
) -> OpenedNetwork:
    net, info = network_from(weights)
    if getattr(net, "dynamic_img_size", True) is False:
        kwargs = {**info.model_kwargs, "dynamic_img_size": True}
        flexible = create_model(ModelConfig(info.model, kwargs), len(info.classes), weights.max_network)
        flexible.load_state_dict(net.state_dict())
        net, info = flexible, replace(info, model_kwargs=kwargs)
        _log_resizing(net, info.model)
    if new_classifier and classes is not None and tuple(classes) != info.classes:
        net.reset_classifier(len(classes))
        net.to(memory_format=torch.channels_last)
        _log.warning("%s: a new classifier for %d classes, with random weights", weights.path, len(classes))
        info, outputs = replace(info, classes=tuple(classes)), None
    else:
        known, outputs = _matched(str(weights.path), info.classes, names, len(info.classes), classes)
        info = replace(info, classes=known)
    return OpenedNetwork(net.eval(), info, Normalize(info.mean, info.std), outputs)


def _matched(
    network: str, own: tuple[str, ...] | None, given: Names | None, num_outputs: int, classes: Sequence[str] | None
) -> Matched:
    """The names of all outputs, and which are those of the data's classes; without data, numbers if nothing else."""
    if classes is not None:
        return match_classes(network, own, given, num_outputs, classes)
    names = output_names(network, given, num_outputs) or own
    return Matched(names or tuple(str(number) for number in range(num_outputs)), None)


def _open_pretrained(
    weights: WeightFile,
    arch: str,
    kwargs: dict[str, Any],
    classes: Sequence[str] | None,
    names: Names | None,
    new_classifier: bool,
) -> OpenedNetwork:
    """Weights that are not one of our checkpoints."""
    name, zoo_kwargs = _timm_name(arch)
    kwargs = zoo_kwargs | kwargs
    num_classes = 1000 if classes is None else len(classes)
    net = _flexible(name, kwargs, num_classes, weights.max_network)
    state_dict = translated(weights, net)
    classifier = classifier_name(net)
    rows = len(state_dict[f"{classifier}.weight"]) if f"{classifier}.weight" in state_dict else None
    is_new = new_classifier and rows != num_classes
    if is_new:
        message = "%s: a new classifier for %d classes instead of %s, with random weights"
        _log.warning(message, weights.path, num_classes, rows or "none")
        state_dict = {key: value for key, value in state_dict.items() if not key.startswith(f"{classifier}.")}
    elif rows not in (None, num_classes):
        num_classes = rows
        net = _flexible(name, kwargs, num_classes, weights.max_network)
    load_weights(weights, net, name, state_dict, f"{classifier}." if is_new else None)
    _log_resizing(net, name)
    known, outputs = _matched(str(weights.path), tuple(classes or ()) if is_new else None, names, num_classes, classes)
    info = _describe(net, name, kwargs, known)
    return OpenedNetwork(net.eval(), info, Normalize(info.mean, info.std), outputs)


def _timm_name(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name and arguments of a name from timm or from our zoo."""
    import timm

    if name in ZOO and not timm.is_model(name):
        return ZOO[name].timm_name, dict(ZOO[name].timm_kwargs)
    if timm.is_model(name) and "." in name and not timm.is_model_pretrained(name):
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")[:5])
        raise InputError(f"timm has no weights {name}; it has {tags or 'none of that network'}")
    return name, {}


def _flexible(name: str, kwargs: dict[str, Any], num_classes: int, max_values: int) -> nn.Module:
    """The network, for images of any size if it supports them."""
    net = create_model(ModelConfig(name, kwargs), num_classes, max_values)
    if getattr(net, "dynamic_img_size", True) is False and "dynamic_img_size" not in kwargs:
        kwargs["dynamic_img_size"] = True
        net = create_model(ModelConfig(name, kwargs), num_classes, max_values)
    return net


def _describe(net: nn.Module, name: str, kwargs: dict[str, Any], classes: tuple[str, ...]) -> CheckpointInfo:
    """The test transform that timm has on record for these weights; the file itself has none."""
    config = net.pretrained_cfg
    info = CheckpointInfo(model=name, model_kwargs=kwargs, classes=classes, **recorded_transform(config))
    tag = f"{config['architecture']}.{config['tag']}" if config.get("tag") else name
    instead = "" if info.interpolation == (wanted := config.get("interpolation")) else f" (instead of {wanted})"
    _log.warning(
        "%s: transform of timm's %s: crop_pct %g, %s%s, mean %s, std %s; another arch (NAME.TAG), crop_pct or "
        "interpolation changes it",
        name, tag, info.crop_pct, info.interpolation, instead, list(info.mean), list(info.std),
    )  # fmt: skip
    return info


def _log_resizing(net: nn.Module, name: str) -> None:
    if getattr(net, "dynamic_img_size", False) and getattr(net, "pos_embed", None) is not None:
        embed = getattr(net, "patch_embed", None)
        grid = " x ".join(map(str, getattr(embed, "grid_size", None) or ())) or "?"
        _log.warning("%s: its position embedding (%s patches) is resized to each test resolution", name, grid)

"""Any classifier from timm's library as a network that we can test and finetune: by name, or from a file of any origin.

    net, info, normalize = open_network("runs/demo/fast/finetuned.pt", classes)
    net, info, normalize = open_network("FixResNet50.pth", classes, arch="resnet50.tv_in1k")

What a person should know of a foreign network (which transform is assumed, what was resized) is logged in a line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import FORMAT, CheckpointInfo, load_checkpoint
from fixres.models.factory import Normalize, create_model
from fixres.models.weights import WeightFile, read_weights
from fixres.models.zoo import ZOO
from pipelines.spec import InputError

_ENDINGS = (".pt", ".pth", ".bin", ".tar", ".safetensors", ".ckpt")
_NUM_SHOWN = 3
_log = logging.getLogger(__name__)


class OpenedNetwork(NamedTuple):
    """A network that is ready for the loader's batches.

    Attributes:
        net: on the CPU, in eval mode, in channels_last.
        info: name, classes, resolutions, test transform.
        normalize: uint8 NHWC batches to its input.
    """

    net: nn.Module
    info: CheckpointInfo
    normalize: Normalize


@dataclass(frozen=True)
class NetworkChoice:
    """Which network a job works on: the settings that all jobs share."""

    checkpoint: Path | None = None
    """A file of weights; the older word for model."""
    model: str | None = None
    """A file of weights (ours, timm's, torchvision's, FixRes', safetensors), or the timm name of cached weights."""
    arch: str | None = None
    """timm's name of the network, for weights that do not tell it; a tag (resnet50.tv_in1k) says whose transform."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, for weights that do not tell them."""
    crop_pct: float | None = None
    """Of the test crop; that of the weights if null."""

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.model is None):
            raise InputError("give one of --model and --checkpoint: a file of weights or timm's name of cached ones")

    @property
    def weights(self) -> str:
        """`model` or `checkpoint`."""
        return str(self.model if self.model is not None else self.checkpoint)

    def open(self, classes: Sequence[str] | None, new_classifier: bool = False) -> OpenedNetwork:
        """The network, for data with these classes; see `open_network`."""
        return open_network(
            self.weights,
            classes,
            arch=self.arch,
            model_kwargs=self.model_kwargs,
            crop_pct=self.crop_pct,
            new_classifier=new_classifier,
        )


@dataclass(frozen=True)
class Mismatch:
    """Names in which a file and a network differ.

    Attributes:
        missing: the network has them, the file does not.
        unexpected: the file has them, the network does not.
        shapes: both have them, with the shapes of file and network.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.shapes))
        return "; ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds if names)


def open_network(
    model: str,
    classes: Sequence[str] | None = None,
    *,
    arch: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    crop_pct: float | None = None,
    new_classifier: bool = False,
) -> OpenedNetwork:
    """Opens a network with its weights.

    Args:
        model: a file of weights (ours, timm's, torchvision's, FixRes', safetensors), or the timm name of weights that
            are in the local cache, such as resnet50.tv_in1k. Nothing is downloaded.
        classes: class names of the data in label order; None takes what the weights have.
        arch: timm's or `model_zoo`'s name of the network, for files that do not tell it. A tag (resnet50.tv_in1k) says
            whose transform is meant.
        model_kwargs: further arguments of timm.create_model, for foreign weights.
        crop_pct: of the test crop, instead of what is noted with the weights.
        new_classifier: put a classifier with random weights in the place of one for other classes.

    Raises:
        InputError: no such file or name, weights that do not fit the network, a classifier for other classes.
    """
    path = _as_path(model)
    if path is None:
        arch = arch or model
        weights = read_weights(cached_weights(_timm_name(model)[0]))
    else:
        weights = read_weights(path)
        if weights.content.get("format") == FORMAT:
            opened = _open_own(path, classes, new_classifier)
            return _with_crop(opened, crop_pct)
    arch = arch or weights.arch
    if arch is None:
        raise InputError(f"{model}: the file does not name its network; add --arch with timm's name, such as resnet50")
    return _with_crop(_open_foreign(weights, arch, dict(model_kwargs or {}), classes, new_classifier), crop_pct)


def cached_weights(name: str) -> Path:
    """The file of timm's weights `name` in the caches of Hugging Face and torch.

    Raises:
        InputError: timm has no such weights, or they were never downloaded.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if config is None:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")[:5]
        raise InputError(f"timm has no weights {name}; there are {', '.join(tags) or 'none of that network'}")
    for file in ("model.safetensors", "pytorch_model.bin") if config.hf_hub_id else ():
        found = try_to_load_from_cache(config.hf_hub_id, config.hf_hub_filename or file)
        if isinstance(found, str):
            return Path(found)
    if config.url:
        found = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(config.url)
        if found.is_file():
            return found
    raise InputError(
        f"the weights of {name} are not in the local cache; download them once where there is a network: "
        f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\", or give a file"
    )


def _open_own(path: Path, classes: Sequence[str] | None, new_classifier: bool) -> OpenedNetwork:
    net, info = load_checkpoint(path)
    if getattr(net, "dynamic_img_size", True) is False:
        kwargs = {**info.model_kwargs, "dynamic_img_size": True}
        flexible = create_model(ModelConfig(info.model, kwargs), len(info.classes))
        flexible.load_state_dict(net.state_dict())
        net, info = flexible, replace(info, model_kwargs=kwargs)
        _tell_resizing(net, info.model)
    if classes is not None and tuple(classes) != info.classes:
        if not new_classifier:
            raise InputError(
                f"{path} knows {len(info.classes)} classes ({_first(info.classes)}), the data has {len(classes)} "
                f"({_first(classes)}); test it on the classes it was trained on"
            )
        net.reset_classifier(len(classes))
        net.to(memory_format=torch.channels_last)
        _log.warning("%s: a new classifier for %d classes, with random weights", path, len(classes))
        info = replace(info, classes=tuple(classes))
    return OpenedNetwork(net.eval(), info, Normalize(info.mean, info.std))


def _open_foreign(
    weights: WeightFile, arch: str, kwargs: dict[str, Any], classes: Sequence[str] | None, new_classifier: bool
) -> OpenedNetwork:
    name, zoo_kwargs = _timm_name(arch)
    kwargs = zoo_kwargs | kwargs
    num_classes = 1000 if classes is None else len(classes)
    net = _flexible(name, kwargs, num_classes)
    state_dict = _translated(weights, net)
    head = _classifier_name(net)
    rows = len(state_dict[f"{head}.weight"]) if f"{head}.weight" in state_dict else None
    if classes is None and rows is not None and rows != num_classes:
        num_classes = rows
        net = _flexible(name, kwargs, num_classes)
    if rows is None and new_classifier:
        _log.warning("%s: has no classifier; a new one for %d classes, with random weights", weights.path, num_classes)
    elif rows not in (None, num_classes):
        state_dict = _without_classifier(weights.path, state_dict, head, rows, num_classes, new_classifier)
    _load(weights, net, state_dict, name, allowed=f"{head}." if new_classifier and rows != num_classes else None)
    _tell_resizing(net, name)
    names = tuple(classes) if classes is not None else tuple(str(number) for number in range(num_classes))
    info = _describe(net, name, kwargs, names)
    return OpenedNetwork(net.eval(), info, Normalize(info.mean, info.std))


def mismatch(net: nn.Module, state_dict: Mapping[str, Tensor]) -> Mismatch:
    """Where names and shapes differ; BatchNorm's counters of steps, which old files lack, do not count."""
    wanted = net.state_dict()
    missing = tuple(name for name in wanted if name not in state_dict and not name.endswith("num_batches_tracked"))
    unexpected = tuple(name for name in state_dict if name not in wanted)
    shapes = tuple(
        f"{name} {tuple(value.shape)} for {tuple(wanted[name].shape)}"
        for name, value in state_dict.items()
        if name in wanted and value.shape != wanted[name].shape
    )
    return Mismatch(missing, unexpected, shapes)


def _load(weights: WeightFile, net: nn.Module, state_dict: dict[str, Tensor], name: str, allowed: str | None) -> None:
    """Loads all weights; only those of the classifier (`allowed` prefix) may be missing."""
    differences = mismatch(net, state_dict)
    if allowed is not None:
        missing = tuple(one for one in differences.missing if not one.startswith(allowed))
        differences = replace(differences, missing=missing)
    if differences:
        raise InputError(
            f"{weights.path}: {weights.kind} that do not fit {name}: {differences}; name the right network with --arch"
        )
    plain = [value.layout == torch.strided and not value.is_quantized for value in state_dict.values()]
    if not all(plain):
        raise InputError(f"{weights.path}: sparse or quantized weights; give plain ones")
    bad = next((key for key, value in state_dict.items() if not bool(torch.isfinite(value).all())), None)
    if bad is not None:
        raise InputError(f"{weights.path}: {bad} is not finite; the training that made it had failed")
    net.load_state_dict(state_dict, strict=False)


def _without_classifier(
    path: Path, state_dict: dict[str, Tensor], head: str, rows: int, num_classes: int, new_classifier: bool
) -> dict[str, Tensor]:
    if not new_classifier:
        raise InputError(
            f"{path}: wrong classifier size, {rows} classes for the data's {num_classes}; test it on the classes it "
            "was trained on"
        )
    _log.warning("%s: a new classifier for %d classes instead of %d, with random weights", path, num_classes, rows)
    return {key: value for key, value in state_dict.items() if not key.startswith(f"{head}.")}


def _timm_name(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name and arguments of a name that is timm's or the zoo's."""
    import timm

    if name in ZOO and not timm.is_model(name):
        return ZOO[name].timm_name, dict(ZOO[name].timm_kwargs)
    if timm.is_model(name) and "." in name and not timm.is_model_pretrained(name):
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")[:5])
        raise InputError(f"timm knows no {name}; of that network it has {tags or 'no weights'}")
    return name, {}


def _flexible(name: str, kwargs: dict[str, Any], num_classes: int) -> nn.Module:
    """The network, made to take images of any size if it can."""
    net = create_model(ModelConfig(name, kwargs), num_classes)
    if getattr(net, "dynamic_img_size", True) is False and "dynamic_img_size" not in kwargs:
        kwargs["dynamic_img_size"] = True
        net = create_model(ModelConfig(name, kwargs), num_classes)
    return net


def _translated(weights: WeightFile, net: nn.Module) -> dict[str, Tensor]:
    """The file's tensors under timm's names: timm knows the original ones of many networks."""
    state_dict = dict(weights.state_dict)
    module = sys.modules[type(net).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if translate is None or not mismatch(net, state_dict):
        return state_dict
    arguments = (dict(state_dict), net)[: len(signature(translate).parameters)]
    try:
        translated = translate(*arguments)
    except Exception:  # a stranger's file may lack whatever timm's function takes for granted
        return state_dict
    return dict(translated) if isinstance(translated, Mapping) else state_dict


def _classifier_name(net: nn.Module) -> str:
    classifier = net.get_classifier()
    return next((name for name, module in net.named_modules() if module is classifier), "fc")


def _describe(net: nn.Module, name: str, kwargs: dict[str, Any], classes: tuple[str, ...]) -> CheckpointInfo:
    """The transform that timm notes with these weights; nobody else knows it."""
    config = net.pretrained_cfg
    train_size, test_size = config["input_size"], config.get("test_input_size") or config["input_size"]
    crop_pct = (config.get("test_crop_pct") if config.get("test_input_size") else None) or config["crop_pct"]
    info = CheckpointInfo(
        model=name,
        model_kwargs=kwargs,
        classes=classes,
        train_res=train_size[-1],
        test_res=test_size[-1],
        crop_pct=crop_pct,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    tag = f"{config['architecture']}.{config['tag']}" if config.get("tag") else name
    resized = (
        "" if config["interpolation"] == "bilinear" else f", but resized bilinearly, not {config['interpolation']}"
    )
    _log.warning(
        "%s: transform of timm's %s: crop_pct %g, mean %s, std %s%s; --arch NAME.TAG or --crop_pct change it",
        name, tag, crop_pct, list(info.mean), list(info.std), resized,
    )  # fmt: skip
    return info


def _tell_resizing(net: nn.Module, name: str) -> None:
    if getattr(net, "dynamic_img_size", False) and getattr(net, "pos_embed", None) is not None:
        embed = getattr(net, "patch_embed", None)
        grid = " x ".join(map(str, getattr(embed, "grid_size", None) or ())) or "?"
        _log.warning("%s: its position embedding (%s patches) is resized to each test resolution", name, grid)


def _with_crop(opened: OpenedNetwork, crop_pct: float | None) -> OpenedNetwork:
    return opened if crop_pct is None else opened._replace(info=replace(opened.info, crop_pct=crop_pct))


def _as_path(model: str) -> Path | None:
    """`model` as a file, or None if it is a name."""
    path = Path(model)
    return path if path.exists() or os.sep in model or path.suffix in _ENDINGS else None


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")

"""Opens the network that a run of detection or segmentation saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN

from fixres.config.transfer import DetectRecipe, SegmentRecipe, TransferRecipe
from fixres.config.validation import validated
from fixres.models.checkpoint import TASK_OPENERS, task_of
from fixres.models.factory import Normalize
from fixres.models.precision import choose_device, choose_precision
from fixres.models.state_dicts import check_values, differences
from fixres.models.weights import WeightFile, read_weights
from fixres.pipelines.spec import InputError
from fixres.transfer.detection import create_detector
from fixres.transfer.feature_pyramid import LAST_FOUR, Backbone, open_backbone
from fixres.transfer.run import VERSION
from fixres.transfer.segmentation import Segmenter, create_segmenter, segmenter_stages


def open_detector(path: Path, device: str = "cpu") -> FasterRCNN:
    """See `fixres.detector`."""
    content = _content(path, "detect")
    recipe = _recipe(path, DetectRecipe, content)
    precision = choose_precision("fp32", choose_device(device))

    def make() -> FasterRCNN:
        return create_detector(recipe, _backbone(recipe, content, LAST_FOUR), len(content["classes"]), precision)

    net = _loaded(content["weights"], make).to(precision.device)
    net.classes = ("__background__", *content["classes"])
    return net


def open_segmenter(path: Path, device: str = "cpu") -> Segmenter:
    """See `fixres.segmenter`."""
    content = _content(path, "segment")
    recipe = _recipe(path, SegmentRecipe, content)

    def make() -> Segmenter:
        return create_segmenter(recipe, _backbone(recipe, content, *segmenter_stages(recipe)), len(content["classes"]))

    net = _loaded(content["weights"], make).to(choose_device(device))
    net.classes = tuple(content["classes"])
    return net


def _content(path: Path, task: str) -> dict[str, Any]:
    """What the file holds, with its `WeightFile` as "weights"."""
    weights = read_weights(path)
    content = dict(weights.content)
    found = task_of(weights)
    if found is None:
        raise InputError(f"{path}: not the trained.pt of `fixres {task}`; fixres.load opens classifiers")
    if found != task:
        raise InputError(f"{path}: made by `fixres {found}`; open it with {TASK_OPENERS[found]}")
    if content.get("version") != VERSION:
        raise InputError(f"{path}: version {content.get('version')!r:.20}, this program reads version {VERSION}")
    classes, backbone = content.get("classes"), content.get("backbone")
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes) or not classes:
        raise InputError(f"{path}: the names of its classes are missing; the file is damaged")
    if not isinstance(backbone, dict) or not {"model", "model_kwargs", "mean", "std"} <= backbone.keys():
        raise InputError(f"{path}: the description of its backbone is missing; train it again with this version")
    return content | {"weights": weights}


def _recipe(path: Path, kind: type, content: dict[str, Any]) -> Any:
    try:
        return validated(kind, content["recipe"])
    except (InputError, KeyError) as error:
        raise InputError(f"{path}: its recipe is damaged or of another version ({error})") from error


def _backbone(
    recipe: TransferRecipe, content: dict[str, Any], stages: tuple[int, ...], stride: int | None = None
) -> Backbone:
    """The backbone with random weights, for images of the same mean and deviation."""
    described, settings = content["backbone"], {"init": "random", "batchnorm": recipe.backbone.batchnorm}
    try:
        opened = open_backbone(
            str(described["model"]), stages, stride, model_kwargs=described["model_kwargs"], **settings
        )
    except InputError as error:
        raise InputError(f"{content['weights'].path}: its network is refused: {error}") from error
    opened.info = replace(opened.info, mean=tuple(described["mean"]), std=tuple(described["std"]))
    opened.normalize = Normalize(opened.info.mean, opened.info.std)
    return opened


def _loaded(weights: WeightFile, make: Any) -> Any:
    """The network with the file's weights, in eval mode. It is made without memory first, in case they do not fit."""
    with torch.device("meta"):
        planned: nn.Module = make()
    if found := differences(planned, weights.state_dict):
        raise InputError(f"{weights.path}: its weights do not fit its network: {found}; the file is damaged")
    net: nn.Module = make()
    net.load_state_dict(weights.state_dict)
    check_values(weights.path, net, weights.state_dict)
    return net.eval()

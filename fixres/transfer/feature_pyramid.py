"""A trained classifier as the backbone of another network: feature maps of its stages, with its weights.

timm's `features_only` makes the network without its head. Some of timm's wrappers rename modules ("stages.0" becomes
"stages_0", or gets "model." in front), so the weights are moved by names in which these changes are undone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fixres.config.recipe import ModelConfig
from fixres.config.transfer import BackboneConfig
from fixres.models.checkpoint import CheckpointInfo
from fixres.models.factory import Normalize, create_features, create_model
from fixres.models.pretrained import find_weights, names_file, open_network
from fixres.models.state_dicts import shortened
from fixres.pipelines.spec import InputError

LAST_FOUR = (-4, -3, -2, -1)
_WRAPPERS = ("model.", "body.", "graph_module.")  # what timm's feature extractors put before a network's names
_PROBE_PIXELS = 64
_UNDILATED = 32  # the stride of most networks' last stage; others take no such argument
_STRIDES = (None, 8, 16, _UNDILATED)


@dataclass(frozen=True)
class LoadedWeights:
    """Which weights of a classifier are in its backbone.

    Attributes:
        source: file or name of the weights; "random weights" if none were loaded.
        loaded: names in the backbone, with the classifier's name of each.
        left_out: the classifier's names that the backbone does not have: its head, and stages after the last output.
    """

    source: str
    loaded: dict[str, str]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        others = f"; {len(self.left_out)} left out ({shortened(self.left_out)})" if self.left_out else ""
        return f"{self.source}: {len(self.loaded)} tensors loaded into the backbone{others}"


class Backbone(nn.Module):
    """Stages of a classifier.

    Attributes:
        body: timm's feature extractor.
        channels: of each output.
        reductions: pixels of the image per cell of each output.
        info: of the classifier; mean and std are those of the images that it takes.
        normalize: makes its input from uint8 NHWC.
        weights: what was loaded, for people.
    """

    def __init__(self, body: nn.Module, info: CheckpointInfo, weights: LoadedWeights) -> None:
        super().__init__()
        self.body, self.info, self.weights = body, info, weights
        self.channels = tuple(body.feature_info.channels())
        self.reductions = tuple(body.feature_info.reduction())
        self.normalize = Normalize(info.mean, info.std)
        self._is_nhwc = "NHWC" in str(getattr(body, "output_fmt", ""))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps, float (B, channels, H / reduction, W / reduction) each, of normalized float (B, 3, H, W)."""
        features = self.body(images)
        return [feature.permute(0, 3, 1, 2).contiguous() for feature in features] if self._is_nhwc else features

    def freeze(self, num_stages: int) -> None:
        """The weights that the first `num_stages` outputs depend on are not trained any more."""
        if not 0 <= num_stages <= len(self.channels):
            raise InputError(
                f"backbone.num_frozen_stages={num_stages} of {len(self.channels)} stages; use 0 to {len(self.channels)}"
            )
        if num_stages == 0:
            return
        parameters = list(self.body.parameters())
        device = parameters[0].device
        was_training = self.training
        self.eval()
        last = self(torch.zeros(1, 3, _PROBE_PIXELS, _PROBE_PIXELS, device=device))[num_stages - 1]
        used = torch.autograd.grad(last.sum(), parameters, allow_unused=True)
        self.train(was_training)
        for parameter, gradient in zip(parameters, used, strict=True):
            parameter.requires_grad_(gradient is None)


def chosen_backbone(
    config: BackboneConfig,
    out_indices: Sequence[int] = LAST_FOUR,
    output_stride: int | None = None,
    probe: tuple[int, int] = (96, 160),
) -> Backbone:
    """The backbone of a recipe; see `open_backbone`. It must take images of other sizes, tried with one of `probe`."""
    with _own_options():
        backbone = open_backbone(
            config.weights or "", out_indices, output_stride, arch=config.arch, model_kwargs=config.model_kwargs,
            init=config.init, batchnorm=config.batchnorm,
        )  # fmt: skip
    try:
        with torch.inference_mode():
            backbone.eval()(torch.zeros(1, 3, *probe))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{backbone.info.model} does not take images of {probe[0]} x {probe[1]} pixels ({reason}), but images have "
            "all sizes here; choose another network, such as resnet50"
        ) from error
    return backbone.train()


def check_weights(config: BackboneConfig) -> None:
    """Raises InputError if `chosen_backbone` will not find the weights, or not know their network."""
    if config.init == "trained" or names_file(config.weights or ""):
        with _own_options():
            find_weights(config.weights or "", config.arch, config.model_kwargs)


@contextmanager
def _own_options() -> Iterator[None]:
    """Names options as `fixres detect` has them: "--arch" becomes "--backbone.arch"."""
    try:
        yield
    except InputError as error:
        error.args = (re.sub(r"(?<![\w-])--(arch|model-kwargs)\b", r"--backbone.\1", str(error)),)
        raise


def open_backbone(
    weights: str,
    out_indices: Sequence[int] = LAST_FOUR,
    output_stride: int | None = None,
    *,
    arch: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    init: str = "trained",
    batchnorm: str = "frozen",
) -> Backbone:
    """The backbone of a network that `fixres.models.pretrained.open_network` opens. See `fixres.backbone`.

    Args:
        weights: a file of weights, or timm's name of cached weights; with random weights any of timm's names.
        out_indices: numbers of the stages.
        output_stride: 8 or 16 dilates the last stages; 32 or None does not.
        arch: timm's name, for files that do not name their network.
        model_kwargs: arguments of the network, for files without them.
        init: "trained" or "random".
        batchnorm: "frozen" or "trainable".

    Raises:
        InputError: weights that cannot be opened, or a network without such stages.
    """
    if output_stride not in _STRIDES:
        raise InputError(f"output_stride={output_stride} must be 8, 16 or 32, or None to keep the network's own")
    output_stride = None if output_stride == _UNDILATED else output_stride
    if init == "random" and weights and not names_file(weights):
        config, info = ModelConfig(weights.partition(".")[0], dict(model_kwargs or {})), None
        net = create_model(config, 1)
    else:
        opened = open_network(weights, arch=arch, model_kwargs=model_kwargs)
        net, info = opened.net, opened.info
        config = ModelConfig(info.model.partition(".")[0], info.model_kwargs)
    _check_stages(config.name, getattr(net, "feature_info", ()), out_indices)
    body = create_features(config, out_indices, output_stride)
    if output_stride is not None:
        _check_dilated(config, out_indices, output_stride, body)
    if init == "random":
        loaded = LoadedWeights(f"random weights, network {config.name}", {}, ())
    else:
        loaded = _move(weights, net, body)
    info = info or CheckpointInfo(config.name, config.kwargs, ("none",), _PROBE_PIXELS, _PROBE_PIXELS, 1.0)
    return Backbone(_with_frozen_batchnorm(body) if batchnorm == "frozen" else body, info, loaded)


def _check_stages(name: str, stages: Sequence[Any], out_indices: Sequence[int]) -> None:
    """Raises InputError for numbers that timm would sort, use once or not find, while it reports them as given."""
    last = len(stages) - 1
    if last < 0:
        return  # unknown before timm builds the feature extractor
    numbers = [number + len(stages) if number < 0 else number for number in out_indices]
    rises = all(one < other for one, other in pairwise(numbers))
    if not numbers or not rises or not 0 <= numbers[0] <= numbers[-1] <= last:
        raise InputError(
            f"out_indices={tuple(out_indices)}: give increasing stage numbers, at least one; {name} has stages 0 to "
            f"{last}, or {-1 - last} to -1 from the end"
        )


def _check_dilated(config: ModelConfig, out_indices: Sequence[int], output_stride: int, body: nn.Module) -> None:
    """Raises InputError if stages without their stride lose the projection of their shortcut."""
    with torch.device("meta"):
        strided = create_features(config, out_indices)
    if lost := sorted(strided.state_dict().keys() - body.state_dict().keys()):
        raise InputError(
            f"{config.name} with output_stride={output_stride} has no {shortened(lost)}: a stage has as many channels "
            "as the one before, so timm builds it without projection; use another output_stride"
        )


def _move(source: str, net: nn.Module, body: nn.Module) -> LoadedWeights:
    """Loads the classifier's weights into the feature extractor."""
    values = net.state_dict()
    own = {_plain(name): name for name in values}
    wanted = body.state_dict()
    names = {name: own.get(_plain(name)) for name in wanted}
    missing = [name for name, found in names.items() if found is None]
    if missing or len(own) < len(values):
        raise InputError(
            f"{source}: timm's feature extractor of this network has other names ({shortened(missing)}), so its "
            "weights cannot be loaded; choose another network"
        )
    loaded = {name: found for name, found in names.items() if found is not None}
    body.load_state_dict({name: values[found] for name, found in loaded.items()})
    left_out = tuple(name for name in values if name not in set(loaded.values()))
    return LoadedWeights(source, loaded, left_out)


def _plain(name: str) -> str:
    """A name of a weight without what timm's feature extractors change in it."""
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name.replace(".", "_")


def _with_frozen_batchnorm(body: nn.Module) -> nn.Module:
    from timm.layers import freeze_batch_norm_2d

    return freeze_batch_norm_2d(body)

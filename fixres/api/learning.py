"""`fixres.evaluate`, `fixres.finetune`: test and fine-tune any network that takes images, from timm or not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fixres.api.calls import checked, options_as_keywords
from fixres.api.classes import ClassNames, names_from
from fixres.api.network import Network
from fixres.api.splits import open_splits, split_path, val_beside
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.config.validation import validated
from fixres.evaluation.accuracy import EvalResult, sweep
from fixres.finetuning.loop import FinetuneContext, FinetuneResult
from fixres.finetuning.loop import finetune as finetune_layers
from fixres.finetuning.preflight import check_finetune, probe_for_finetune
from fixres.models.checkpoint import with_input_size
from fixres.models.classes import match_classes
from fixres.models.factory import Normalize
from fixres.models.precision import choose_precision
from fixres.models.predictor import Predictor
from fixres.models.probe import device_of, eval_mode, num_logits, set_input_size, sized
from fixres.models.state_dicts import shortened
from fixres.models.timm_folder import recorded_transform
from fixres.observability.console import log
from fixres.pipelines.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalCrop,
    InputError,
    Interpolation,
    Loader,
    TrainCrop,
    check_resolution,
)


@dataclass(frozen=True)
class FinetuneOutcome:
    """A fine-tuned network, with its accuracies before and after.

    Attributes:
        model: what was given to `finetune`, with its new weights.
        test_res: test resolution of the fine-tuning in pixels.
        finetuning: which layers were trained; losses and seconds of the epochs.
        before: the test at `test_res` before the fine-tuning; None without test images.
        after: the same after it.
    """

    model: nn.Module | Network = field(repr=False)
    test_res: int
    finetuning: FinetuneResult
    before: EvalResult | None
    after: EvalResult | None


@checked
def evaluate(
    model: nn.Module | Network,
    data: str | os.PathLike[str],
    resolutions: int | Sequence[int] | None = None,
    *,
    classes: ClassNames | None = None,
    batch_size: int = 64,
    crop_pct: float | None = None,
    interpolation: Interpolation | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    engine: str = "auto",
    num_workers: int | None = None,
    precision: str = "auto",
) -> list[EvalResult]:
    """Tests a network at one or several resolutions, on the device of its parameters.

    It takes many parameters, because the network and the data have settings of their own; all but two have defaults.
    The network's mode (training or evaluation) and its gradients are as before afterwards.

    Args:
        model: takes float (N, 3, r, r), normalized, and gives logits (N, number of classes); or what `fixres.load`
            returns.
        data: test images, as for `fixres.Loader`; the test split, if it holds both.
        resolutions: test resolutions in pixels; that of the network if None, which modules from elsewhere do not name.
            A network of timm's with a fixed size is tested as a copy that is set to each of them (docs/fixres.md).
        classes: names of the network's outputs, for a network that does not name them, as for `fixres.load`. The data's
            classes are found among them by name. Without names there must be as many outputs as classes, or the data
            is ImageNet, or a part of it.
        batch_size: images per step over all processes.
        crop_pct: side of the center crop over the resized short side, in (0, 1]. For this and the next three, None
            takes those of a network from `fixres.load`; those that timm has on record for a network from timm; else
            0.875, bilinear and ImageNet's.
        interpolation: filter of the resize, "bilinear" or "bicubic", antialiased.
        mean: channel means in [0, 1], RGB.
        std: channel standard deviations in [0, 1], RGB.
        engine: "auto", or a name in `fixres.pipelines.loaders.ENGINES`.
        num_workers: worker threads or processes of the loader; the number of CPU cores by default.
        precision: autocast type: "auto", "fp32", "bf16" or "fp16".

    Returns:
        Accuracies (fractions), loss and speed at each resolution, in the given order.

    Raises:
        InputError: data that cannot be read, classes that are not those of the network, a resolution that it cannot
            take, or a value out of range.

    Example:
        >>> for result in fixres.evaluate(model, "val.beton", resolutions=[224, 288]):
        ...     print(result.test_res, result.top1)
    """
    given = {"crop_pct": crop_pct, "interpolation": interpolation, "mean": mean, "std": std}
    predictor, transform = _opened(model, precision, given)
    tested = _resolutions(transform, resolutions)
    paths = {"val": split_path(Path(data), train=False)}
    open_loader = open_splits(paths, engine, str(predictor.precision.device), num_workers)
    settings = {"crop": transform.eval_crop, "resolution": tested[0], "batch_size": batch_size}
    with eval_mode(predictor.net), closing(open_loader("val", **settings)) as loader:
        for resolution in tested:
            predictor.at(resolution)  # finds a size that it cannot take before the first test
        return sweep(_matched(model, predictor, tested[0], loader.classes, classes), loader, tested, "test")


@checked
def finetune(
    model: nn.Module | Network,
    data: str | os.PathLike[str],
    test_resolution: int,
    *,
    val: str | os.PathLike[str] | None = None,
    classes: ClassNames | None = None,
    train_resolution: int | None = None,
    batch_size: int = 64,
    crop_pct: float | None = None,
    interpolation: Interpolation | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    engine: str = "auto",
    num_workers: int | None = None,
    precision: str = "auto",
    seed: int = 0,
    **settings: Any,
) -> FinetuneOutcome:
    """Fine-tunes the last layers of a network in place for a test resolution (FixRes, arXiv 1906.06423, section 4).

    By default the classifier and the BatchNorm before it are trained for two epochs on training images that are cropped
    as in testing. It takes many parameters, because network, data and fine-tuning have settings of their own; all but
    three have defaults. The network's mode and its gradients are as before afterwards.

    Args:
        model: as for `evaluate`; its logits must come from a linear layer. A network from `fixres.load` gets a new
            `info` and transform. One of timm's with a fixed size is set to `test_resolution`, which replaces its
            position embeddings by resized ones; with `layers="all"` also one that takes any size.
        data: training images, as for `fixres.Loader`; the training split, if it holds both.
        test_resolution: pixels.
        val: test images, for tests before and after; by default val.beton beside train.beton, or val/ beside train/,
            if there is one.
        classes: as for `evaluate`. If the network knows more classes than the data has, the loss counts the outputs of
            the data's classes only.
        train_resolution: pixels, for `adapt="frechet"` only; that of the network if None, which modules from elsewhere
            do not name.
        batch_size: images per step over all processes.
        crop_pct: as for `evaluate`, as are `interpolation`, `mean`, `std`, `engine`, `num_workers` and `precision`.
        seed: of order, crops, flips and color jitter.
        **settings: fields of `fixres.config.recipe.FinetuneConfig`: `epochs` (2), `lr` (0.01, for a batch of 256),
            `layers` ("classifier_bn", or "classifier", "last_blocks", "paper", "all"), `augmentation` ("test_flip", or
            "test", "test_shift", "train"), `adapt` ("none", or "batchnorm", "frechet"), and more.

    Returns:
        The same network, what was trained, and the tests before and after.

    Raises:
        InputError: as `evaluate`; an unknown setting; a network without a linear classifier.

    Example:
        >>> result = fixres.finetune(model, "train.beton", test_resolution=224)
        >>> result.after.top1 - result.before.top1
    """
    with options_as_keywords("finetune", "optim", "data"):
        config = validated(FinetuneConfig, {"batch_size": batch_size} | settings)
        given = {"crop_pct": crop_pct, "interpolation": interpolation, "mean": mean, "std": std}
        predictor, transform = _opened(model, precision, given)
        paths = _splits(Path(data), None if val is None else Path(val))
        open_loader = open_splits(paths, engine, str(predictor.precision.device), num_workers)
        context = FinetuneContext(
            predictor=predictor,
            open_train=partial(open_loader, "train", seed=seed),
            eval_crop=transform.eval_crop,
            train_crop=TrainCrop(interpolation=transform.interpolation),
            train_res=_train_res(transform, train_resolution, config),
            optim=OptimConfig(batch_size=batch_size),
            seed=seed,
        )
        check_resolution(test_resolution)
        shape = {"crop": context.eval_crop, "resolution": test_resolution, "batch_size": batch_size}
        test_loader = closing(open_loader("val", **shape)) if "val" in paths else nullcontext()
        with eval_mode(predictor.net, gradients=True), test_loader as loader:
            outcome = _finetuned(model, context, config, test_resolution, loader, classes)
    if isinstance(model, Network):
        known = {name: getattr(transform, name) for name in given}
        known |= {"train_res": context.train_res, "test_res": test_resolution, "finetuned": True}
        model.set_info(with_input_size(replace(model.info, **known), model.model))
    return outcome


def _finetuned(
    model: nn.Module | Network,
    context: FinetuneContext,
    config: FinetuneConfig,
    resolution: int,
    loader: Loader | None,
    names: ClassNames | None,
) -> FinetuneOutcome:
    """Checks, tests, fine-tunes, tests again; without `loader` it does not test."""
    net = context.predictor.net
    if set_input_size(net, resolution, always=config.layers == "all"):
        log(f"finetune: {type(net).__name__} is set to {resolution} px; position embeddings and windows are resized")
    with closing(context.open(config, resolution)) as train_loader:
        if loader is not None and loader.classes != train_loader.classes:
            raise InputError(
                f"the test images have the classes {shortened(loader.classes)}, the training images "
                f"{shortened(train_loader.classes)}; give val images of the same classes"
            )
        predictor = _matched(model, context.predictor, resolution, train_loader.classes, names)
        context = replace(context, predictor=predictor)
        probe = probe_for_finetune(net, resolution)
        check_finetune(net, probe, train_loader, config, context.optim)
    tests: list[EvalResult] = []
    if loader is not None:
        tests += sweep(context.predictor, loader, [resolution], "before fine-tuning")
    result = finetune_layers(context, config, probe)
    if loader is not None:
        tests += sweep(context.predictor, loader, [resolution], "after fine-tuning")
    before, after = tests or (None, None)
    return FinetuneOutcome(model, resolution, result, before, after)


class _Transform(NamedTuple):
    """The test transform of a network; resolutions in pixels, None if unknown."""

    crop_pct: float = EvalCrop.crop_pct
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    train_res: int | None = None
    test_res: int | None = None

    @property
    def eval_crop(self) -> EvalCrop:
        return EvalCrop(self.crop_pct, interpolation=self.interpolation)


def _opened(model: nn.Module | Network, precision: str, given: Mapping[str, Any]) -> tuple[Predictor, _Transform]:
    """The network with its normalization on its device, and its transform; `given` overrides what is on record."""
    net = model.model if isinstance(model, Network) else model
    other = next((one.dtype for one in net.parameters() if one.dtype != torch.float32), None)
    if other is not None:
        raise InputError(f"{type(net).__name__} has weights of {other}; use model.float(), and precision for autocast")
    transform = _transform(model, given)
    device = device_of(net)
    normalize = Normalize(transform.mean, transform.std).to(device)
    # Networks of others may have operators that autocast breaks, such as quantized ones.
    known = net if isinstance(model, Network) else None
    return Predictor(net, normalize, choose_precision(precision, device, known)), transform


def _transform(model: nn.Module | Network, given: Mapping[str, Any]) -> _Transform:
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(model, Network):
        info = model.info
        known = {name: getattr(info, name) for name in _Transform._fields}
        return _Transform(**known | given)
    record, origin = getattr(model, "pretrained_cfg", None), "ImageNet's defaults"
    transform = _Transform()
    if isinstance(record, Mapping) and {"input_size", "crop_pct", "mean", "std"} <= record.keys():
        transform, origin = _Transform(**recorded_transform(record)), "timm's pretrained_cfg"
    if assumed := [name for name in ("crop_pct", "interpolation", "mean", "std") if name not in given]:
        text = ", ".join(f"{name}={getattr(transform, name)}" for name in assumed)
        log(f"{type(model).__name__}: {text} from {origin}")
    return transform._replace(**given)


def _resolutions(transform: _Transform, resolutions: int | Sequence[int] | None) -> list[int]:
    wanted = transform.test_res if resolutions is None else resolutions
    if wanted is None:
        raise InputError("the network does not name its test resolution; give resolutions, such as [224, 288]")
    if wanted == []:
        raise InputError("resolutions=[] names none; give one or more, such as [224, 288]")
    return [check_resolution(one) for one in (wanted if isinstance(wanted, Sequence) else [wanted])]


def _train_res(transform: _Transform, given: int | None, config: FinetuneConfig) -> int:
    train_res = transform.train_res if given is None else check_resolution(given)
    if train_res is None and config.adapt == "frechet":
        raise InputError("adapt=frechet needs the training resolution, which the network does not name; give "
                         "train_resolution")  # fmt: skip
    return train_res or 0


def _splits(data: Path, val: Path | None) -> dict[str, Path]:
    """The paths of the training images and, if there are any, of the test images."""
    train = split_path(data, train=True)
    test = val_beside(train) if val is None else split_path(val, train=False)
    if test is None:
        log("finetune: there are no test images; give val to test before and after")
        return {"train": train}
    return {"train": train, "val": test}


def _matched(
    model: nn.Module | Network, predictor: Predictor, resolution: int, classes: Sequence[str], names: ClassNames | None
) -> Predictor:
    """The predictor with the outputs of the data's classes."""
    own = model.classes if isinstance(model, Network) else None
    net = sized(predictor.net, resolution)
    outputs = match_classes(type(net).__name__, own, names_from(names), num_logits(net, resolution), classes).outputs
    return predictor._replace(outputs=None if outputs is None else outputs.to(predictor.precision.device))

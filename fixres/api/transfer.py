"""`fixres.backbone`, `fixres.detector`, `fixres.segmenter`, and the data of `fixres detect` and `fixres segment`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fixres.api.calls import checked
from fixres.pipelines.spec import InputError

if TYPE_CHECKING:
    from torchvision.models.detection import FasterRCNN

    from fixres.config.transfer import TransferRecipe
    from fixres.transfer.feature_pyramid import Backbone
    from fixres.transfer.report import TransferReport
    from fixres.transfer.segmentation import Segmenter


@checked
def backbone(
    checkpoint: str | os.PathLike[str],
    out_indices: Sequence[int] = (-4, -3, -2, -1),
    output_stride: int | None = None,
    *,
    arch: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    init: Literal["trained", "random"] = "trained",
    batchnorm: Literal["frozen", "trainable"] = "frozen",
) -> Backbone:
    """The stages of a trained classifier, for detection, segmentation and other tasks. Many parameters, as timm has.

    A line on stderr names how many weights were loaded and which were left out; `weights` of the result has all names.

    Args:
        checkpoint: a file of weights of any origin (ours, timm's, torchvision's, safetensors), or the timm name of
            cached weights.
        out_indices: increasing numbers of the stages whose feature maps are returned: from 0 at the image, or negative
            from the end.
        output_stride: 8 or 16 dilates the last stages so that no feature map has a larger stride; 32 or None does not.
        arch: timm's name of the network, for files that do not name it.
        model_kwargs: further arguments of timm.create_model, for files without them.
        init: "random" keeps random weights, for comparison.
        batchnorm: "frozen" keeps scale, shift and statistics as they are, also in training mode.

    Returns:
        A torch.nn.Module: normalized float (B, 3, H, W) to a list of float (B, channels, H / reduction, W / reduction).
        It has `channels`, `reductions`, `normalize` (uint8 NHWC to its input), `info` with mean and std, and `weights`.

    Raises:
        InputError: a file that cannot be used, or a network without such stages.

    Example:
        >>> net = fixres.backbone("runs/demo/fast/finetuned.pt", output_stride=8)
        >>> [feature.shape for feature in net(torch.zeros(1, 3, 224, 224))]
    """
    from fixres.observability.console import log
    from fixres.transfer.feature_pyramid import open_backbone

    opened = open_backbone(
        os.fspath(checkpoint),
        out_indices,
        output_stride,
        arch=arch,
        model_kwargs=model_kwargs,
        init=init,
        batchnorm=batchnorm,
    )
    log(str(opened.weights))
    return opened


@checked
def detector(checkpoint: str | os.PathLike[str], device: str = "cpu") -> FasterRCNN:
    """The detector that `fixres detect` trained: torchvision's Faster R-CNN, in eval mode.

    Args:
        checkpoint: trained.pt of its run folder.
        device: "cpu", "cuda[:n]" or "auto".

    Returns:
        A torch.nn.Module: a list of float (3, H, W) images in [0, 1] to a list of dicts with "boxes" (N, 4) as x0, y0,
        x1, y1 in pixels, "labels" (N,) and "scores" (N,). `classes` has the name of each label; 0 is the background.

    Raises:
        InputError: a file that `fixres detect` did not make, or a damaged one.

    Example:
        >>> net = fixres.detector("runs/detect/trained.pt")
        >>> (found,) = net([torchvision.io.decode_image("photo.jpg") / 255])
        >>> [net.classes[label] for label in found["labels"]]
    """
    from fixres.transfer.trained import open_detector

    return open_detector(Path(checkpoint), device)


@checked
def segmenter(checkpoint: str | os.PathLike[str], device: str = "cpu") -> Segmenter:
    """The network that `fixres segment` trained, in eval mode.

    Args:
        checkpoint: trained.pt of its run folder.
        device: "cpu", "cuda[:n]" or "auto".

    Returns:
        A torch.nn.Module. Its `predict` gives the class of each pixel, int64 (H, W), of a uint8 (3, H, W) image;
        `classes` has the names. `backbone.normalize` makes the input of its forward from uint8 NHWC.

    Raises:
        InputError: a file that `fixres segment` did not make, or a damaged one.

    Example:
        >>> net = fixres.segmenter("runs/segment/trained.pt")
        >>> mask = net.predict(torchvision.io.decode_image("photo.jpg"))
    """
    from fixres.transfer.trained import open_segmenter

    return open_segmenter(Path(checkpoint), device)


def run_recipe(recipe: TransferRecipe) -> TransferReport | None:
    """Reads the data of a recipe of detection or segmentation and trains. Only the main process gets the report."""
    from fixres.config.transfer import DetectRecipe
    from fixres.distributed.process_group import first_main
    from fixres.observability.console import log
    from fixres.transfer.data import describe, read_data
    from fixres.transfer.detection import DetectionTask
    from fixres.transfer.run import check_before_data, run_transfer
    from fixres.transfer.segmentation import SegmentationTask

    check_before_data(recipe)
    folder = first_main(lambda: _folder(recipe))
    data = read_data(recipe, folder)
    if num_bad := getattr(data, "num_bad", 0):
        log(f"{folder}: {num_bad} bad boxes are left out")
    kind = DetectionTask if isinstance(recipe, DetectRecipe) else SegmentationTask
    return run_transfer(recipe, lambda precision: kind(recipe, data, precision), describe(recipe, data))


def _folder(recipe: TransferRecipe) -> Path:
    """The folder of the data; draws scenes if they are asked for and not there."""
    config = recipe.data
    if config.path != "scenes":
        return Path(str(config.path))
    from fixres.pipelines.sources.scenes.scene import SceneConfig

    try:
        scenes = SceneConfig(seed=config.seed, num_train=config.num_train, num_val=config.num_val)
    except InputError as error:  # it names the field
        name, _, rest = str(error).partition("=")
        raise InputError(f"--data.{name.replace('_', '-')} {rest}") from None
    from fixres.pipelines.sources.scenes.annotated import annotated_scenes  # compiles kernels

    return annotated_scenes(scenes, config.work_dir)

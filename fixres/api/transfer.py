"""`fixres.backbone`, and the data of `fixres detect` and `fixres segment`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from fixres.api.calls import checked

if TYPE_CHECKING:
    from fixres.transfer.feature_pyramid import Backbone


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
        out_indices: stages whose feature maps are returned: from 0 at the image, or negative from the end.
        output_stride: 8 or 16 dilates the last stages so that no feature map has a larger stride.
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

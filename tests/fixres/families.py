"""A small network of each family, and timm's names of its head and of the layers that the papers train."""

from __future__ import annotations

from typing import NamedTuple

import timm
import torch
from torch import nn


class Family(NamedTuple):
    """A network and the names of its trainable layers.

    Attributes:
        name: timm's.
        kwargs: further arguments of timm.create_model.
        side: pixels of an image.
        classifier: the classifier.
        norms: trained beside the classifier with layers "classifier_bn".
        paper: modules trained with layers "paper"; cells and blocks include all modules inside.
        last_block: the last block.
        word: in the logged line; "" for a network like those of the papers.
    """

    name: str
    kwargs: dict
    side: int
    classifier: str
    norms: tuple[str, ...]
    paper: tuple[str, ...]
    last_block: str
    word: str


_RESNET = ("layer4.0.bn2", "layer4.0.downsample.2")
_CELL = tuple(f"cell_11.comb_iter_{k}_left.bn_sep_2" for k in (0, 1, 3, 4))
_LAYERNORM = "no BatchNorm before the classifier"
RESNET = Family("resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8}, 32, "fc", _RESNET, (*_RESNET, "fc"),
                "layer4.0", "")  # fmt: skip
FAMILIES = [
    RESNET,
    Family("resnext50_32x4d", {"layers": [1, 1, 1, 3], "channels": [16, 16, 32, 32]}, 32, "fc", ("layer4.2.bn3",),
           ("layer4.2.bn3", "fc"), "layer4.2", ""),
    Family("efficientnet_b0", {}, 32, "classifier", ("bn2",),
           ("conv_head", "bn2", "classifier"), "blocks.6.0", ""),
    Family("mobilenetv3_small_050", {}, 32, "classifier", ("blocks.5.0.bn1",),
           ("blocks.5.0.conv", "blocks.5.0.bn1", "conv_head", "classifier"), "blocks.4.2", "conv_head between them"),
    Family("convnext_atto", {"dims": (8, 16, 24, 32)}, 32, "head.fc", ("head.norm",), ("head.norm", "head.fc"),
           "stages.3.blocks.1", _LAYERNORM),
    Family("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 3}, 32, "head", ("norm",),
           ("norm", "head"), "blocks.2", _LAYERNORM),
]  # fmt: skip
PNASNET = Family("pnasnet5large", {}, 32, "last_linear", _CELL, ("cell_9", "cell_10", "cell_11", "last_linear"),
                 "cell_11", "")  # fmt: skip


def create(family: Family, num_classes: int = 2) -> nn.Module:
    """The network with fixed random weights and BatchNorm statistics other than 0 and 1."""
    torch.manual_seed(0)
    net = timm.create_model(family.name, num_classes=num_classes, **family.kwargs)
    net.train()
    with torch.no_grad():
        net(torch.randn(4, 3, family.side, family.side) * 0.5)
    return net.eval()

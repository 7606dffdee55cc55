"""The layouts that ImageNet is published in: ILSVRC2012's archives and val images, Kaggle's folders, ImageNet-V2."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "flat": ["FlatSource"],
        "ilsvrc": ["IlsvrcSource"],
        "imagenet_v2": ["ImageNetV2Source"],
        "kaggle": ["KaggleSource"],
        "val_labels": ["read_labels"],
    },
)

"""Augmentation of uint8 batches on their device: color jitter, PCA noise, mixup and CutMix (arXiv 1812.01187)."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "color": ["BatchTransform"],
        "mixup": ["Mix", "draw_mix", "mixed"],
    },
)

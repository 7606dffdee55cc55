"""Augmentation of uint8 batches on their device: RandAugment and its kin, colors, mixup, CutMix, random erasing.

transform = fixres.augment.BatchTransform(AugmentConfig(auto_augment="rand-m9-mstd0.5-inc1"), num_classes=10, seed=0)
images, targets = transform(images, labels, step)
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "batch_transform": ["BatchTransform"],
        "erasing": ["draw_boxes", "erase"],
        "mixup": ["Mix", "draw_mix", "mixed"],
        "operations": ["OPERATIONS", "Program", "applied"],
        "policies": ["draw_program"],
    },
)

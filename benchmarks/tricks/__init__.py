"""Gains and costs of each training trick: `python -m benchmarks.tricks`; their speed: speed, augmentation."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "report": ["augmentation_table", "page", "text", "tricks_speed_table", "tricks_table"],
        "run": ["Ablation"],
        "variants": ["TRICKS", "Trick", "Variant"],
    },
)

"""Benchmarks of single steps of the loaders: conversion, agreement with Pillow, stages of the GPU engines, JPEG
decoders.

Each module is a command: `python -m benchmarks.loaders.NAME`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "agreement": ["Agreement"],
        "tables": [
            "conversion_table",
            "crop_index_table",
            "dali_stages_table",
            "fidelity_table",
            "gpu_staging_table",
            "nvjpeg_backends_table",
        ],
    },
)

"""Crops of unmodified JPEG files: where the decoder can start inside each file, and how it decodes from there.

`checkpoints` defines the data and finds it, `scanning` holds the kernels that do.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__, submod_attrs={"checkpoints": ["Checkpoints", "scan", "scan_batch"]}
)

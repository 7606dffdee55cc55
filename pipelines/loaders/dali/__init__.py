"""Engines that decode with NVIDIA DALI: `roc` (crops cut out of RoC files), `slice` (our boxes) and `stock`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={"roc": ["RocDALILoader"], "slice": ["DALISliceLoader"], "stock": ["DALILoader"]},
)

"""Which backbone makes the better detector or segmentation network, over seeds: `python -m benchmarks.transfer`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__, submod_attrs={"run": ["Comparison"], "tables": ["transfer_table"]}
)

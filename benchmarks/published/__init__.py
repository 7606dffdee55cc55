"""The papers' effects on ImageNet weights that others trained: `python -m benchmarks.published`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__, submod_attrs={"figure": ["published_figure"], "run": ["measure"], "tables": ["published_table"]}
)

"""ImageNet from its files to an accuracy, against the clock: `python -m benchmarks.speedrun`, docs/speedrun.md."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={"run": ["measure"], "tables": ["speedrun_table"]})

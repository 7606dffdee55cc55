"""What FixRes fine-tuning gains at each test resolution: `python -m benchmarks.finetuning`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={"run": ["measure"], "tables": ["finetuning_table"]})

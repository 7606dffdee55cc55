"""Projects the time of a run from measured speeds; tools/estimate.py and benchmarks.savings use it.

Nothing here is a measurement, and every output says so.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={"model": ["Phase", "phases"], "scenario": ["Projection", "Scenario", "project", "step_speeds"]},
)

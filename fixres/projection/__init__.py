"""Projects the time of a run from the speeds of training steps and loaders; `fixres estimate` shows it.

The output says of every number whether it was measured (where, at which commit), given by the user, or projected.
throughput.json is the record of benchmarks.throughput, so that an installed package has loader speeds too.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "model": ["Phase", "Speeds", "phases"],
        "options": ["EstimateOptions"],
        "projection": ["Projection", "estimate"],
        "speeds": ["loader_speeds", "step_speeds"],
    },
)

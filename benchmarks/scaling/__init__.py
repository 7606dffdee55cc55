"""Training in several processes, `python -m benchmarks.scaling`, and the overhead of fault tolerance."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "metrics": ["interconnect", "results"],
        "run": ["measure"],
        "tables": ["fault_tolerance_table", "scaling_table"],
    },
)

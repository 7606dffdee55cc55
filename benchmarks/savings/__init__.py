"""What training small and testing large saves, over several seeds: `python -m benchmarks.savings`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "comparison": ["Comparison", "compare"],
        "report": ["page", "savings_table", "text"],
        "run": ["Savings"],
    },
)

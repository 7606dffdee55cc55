"""What all benchmarks share: interleaved windows, statistics, records, conditions, options, tables, test data.

It knows nothing about the single benchmarks.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "datasets": ["BenchmarkFiles"],
        "interleaved": ["Rounds", "Window", "interleave"],
        "records": ["RESULTS", "record"],
        "stats": ["estimate", "paired_ratio", "spread_of"],
        "tables": ["markdown"],
    },
)

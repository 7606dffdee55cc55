"""What a run shows and records about itself: clocks, progress bars and log lines, traces, hardware and versions."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "clock": ["Clock"],
        "console": ["aligned", "bar", "log"],
        "environment": ["capture"],
        "profiler": ["StepProfiler"],
    },
)

"""Images per second and costs of all engines, in interleaved windows: `python -m benchmarks.throughput`.

Each engine runs in a process of its own (engine_worker), which engine_client controls.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "engines": ["KINDS", "Engine", "Stream"],
        "report": ["write_loader_report"],
        "run": ["measure"],
        "tables": ["as_text", "throughput_table"],
    },
)

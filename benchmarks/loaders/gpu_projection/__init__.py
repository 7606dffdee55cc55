"""What engine roc-gpu's kernels would take of a GPU, projected: `python -m benchmarks.loaders.gpu_projection`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "run": ["measure"],
        "tables": ["gpu_projection_table"],
    },
)

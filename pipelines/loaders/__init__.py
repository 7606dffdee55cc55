"""Engines: different ways from stored images to batches, with one protocol (`fixres.pipelines.spec.Loader`).

`open_loader` opens an engine by its name. `roc` and `pillow` (engine "torch") need no other package; `ffcv` and the
engines in `dali` do.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__, submod_attrs={"registry": ["ENGINES", "has_records", "is_installed", "open_loader"]}
)

"""From a `DataConfig` to loaders: finds or makes the images, converts them for an engine, and opens splits.

`PreparedData` has train and val; `open_eval_data` also takes a single split such as ImageNet-V2.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "eval_data": ["names_for_real", "open_eval_data"],
        "prepared": ["PreparedData", "choose_engine"],
        "resolve": ["prepare_scenes", "resolve_data"],
    },
)

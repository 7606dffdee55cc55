"""Converts a data set into one .beton file (RoC records or plain JPEGs) or webdataset shards.

`convert` runs in parallel and can be interrupted and continued; `merge` merges parts; `verify_data` decodes the result.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "converter": ["Conversion", "convert"],
        "merging": ["merge"],
        "task": ["ConversionConfig"],
        "verification": ["verify_data"],
    },
)

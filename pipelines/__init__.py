"""The data path: from stored images to batches on the device. It knows nothing about models.

`sources` reads images as they come, `conversion` turns them into data files, `loaders` delivers batches from either.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "conversion": ["ConversionConfig", "convert"],
        "loaders": ["open_loader"],
        "sources": ["open_source"],
        "spec": ["Batch", "EvalCrop", "InputError", "LoaderConfig", "TrainCrop"],
    },
)

"""Stored images of every kind that the conversion and the engines read, each as a `fixres.pipelines.spec.Source`.

`open_source` recognizes the kind of a folder or file. `imagenet` has the layouts that ImageNet is published in, and
`scenes` draws a synthetic data set.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "folder": ["FolderSource"],
        "kinds": ["KINDS", "recognize"],
        "open": ["class_list", "open_folder", "open_source", "open_stored"],
        "splits": ["SPLITS"],
    },
)

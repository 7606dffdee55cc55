"""Compiled kernels that decode and resample batches of crops, without the GIL.

`crops` reads RoC records and decodes only the segments that a crop needs. `whole_image` reads ordinary JPEG files with
libjpeg-turbo, for comparisons.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__, submod_attrs={"crops": ["decode_samples", "decode_views"], "whole_image": ["decode_whole_images"]}
)

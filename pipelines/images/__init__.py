"""Single images: opening untrusted files, decoding, encoding for storage, and the filter of the resampler."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "codec": ["decode_rgb", "encode_jpeg", "fit_jpeg", "image_size"],
        "input_formats": ["open_image"],
    },
)

"""RoC records: JPEG images stored so that a crop is read and decoded without the rest of the image.

`layout` defines the bytes of a record, `encoder` makes records, `decoder` turns crops into pixels, and `cut` copies a
crop out of a record as a small JPEG file.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "cut": ["cut_crop"],
        "encoder": ["RocQuality", "encode", "fit_roc"],
        "layout": ["describe"],
        "verification": ["check_records", "check_sample"],
    },
)

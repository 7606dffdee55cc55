"""Looks into data sets: facts about their images and classes, and pictures of images and crops."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "contact_sheet": ["draw_sheet", "first_crops", "stored_images"],
        "facts": ["Inspection", "inspect_source"],
        "image_headers": ["image_sizes", "read_headers"],
        "text": ["as_text"],
    },
)

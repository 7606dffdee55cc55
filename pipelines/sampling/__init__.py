"""Random decisions of the data path: the order of samples, the crop boxes and the flips.

All are pure functions of (seed, epoch, index). So every engine, worker count and resumed run sees the same crops, and
engines can be compared pixel by pixel.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "crops": ["Boxes", "center_boxes", "crop_boxes", "shifted_boxes", "training_boxes"],
        "draws": ["candidates", "drawable", "epoch_draws", "epoch_order", "epoch_size", "indices_of"],
        "order": ["batches", "num_batches"],
        "philox": ["random_words", "uniforms"],
    },
)

"""Detection and segmentation with a trained classifier as backbone (arXiv 1812.01187, section 6). See docs/transfer.md.

feature_pyramid makes the backbone. detection and segmentation have networks and evaluation; run trains them and report
shows the results; trained opens what a run saved. layouts reads annotations, samples and sample_loader make batches.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "feature_pyramid": ["Backbone", "LoadedWeights", "open_backbone"],
    },
)

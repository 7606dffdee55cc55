"""Networks of timm: creating them, opening weights of any origin, checkpoints, device and precision.

`probe` runs a network once to find its stride, blocks and head.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "checkpoint": ["CheckpointInfo", "load_checkpoint", "save_checkpoint"],
        "factory": ["Normalize", "create_model"],
        "precision": ["Precision", "choose_device", "choose_precision"],
        "predictor": ["Predictor"],
        "pretrained": ["OpenedNetwork", "open_network"],
        "probe": ["NetworkProbe", "forward_flops", "probe_network"],
        "zoo": ["ZOO", "ZooModel"],
    },
)

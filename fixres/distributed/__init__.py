"""Training in several processes with torch.distributed, started by torchrun or SLURM.

Every function also works in a single process.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "process_group": [
            "all_gather",
            "all_reduce",
            "broadcast",
            "is_main",
            "joined",
            "num_processes",
            "rank",
            "sharded",
        ],
        "sync_batchnorm": ["synchronized"],
    },
)

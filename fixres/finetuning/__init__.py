"""FixRes fine-tuning of a trained network for a larger test resolution (arXiv 1906.06423, section 4).

`job` does it from a checkpoint to a report, `loop` on an open network. Trained are the layers that `trainable_layers`
chooses; `feature_cache` keeps the output of the frozen ones. `adaptation` needs no labels.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "job": ["FinetuneJob", "finetune_network"],
        "loop": ["FinetuneContext", "FinetuneResult", "finetune"],
        "preflight": ["check_finetune"],
        "report": ["FinetuneReport"],
    },
)

"""Speed of training steps, with data on the device (train_step) and with an engine's batches (end_to_end_step).

Also the parts that other benchmarks of training use: isolated processes and the record of a finished run.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "isolated_run": ["train_apart"],
        "load": ["Load"],
        "run_record": ["record_of"],
        "tables": ["end_to_end_step_table", "train_step_table", "training_table"],
    },
)

"""Learning: recipes, training at growing resolutions, FixRes fine-tuning, evaluation and reports.

`config` has the settings, `models` the networks, `training` the training loop, `finetuning` FixRes, `evaluation` the
accuracies, `resolution` the advice on test resolutions, and `experiment` whole runs. `augment`, `distributed`,
`fault_tolerance`, `observability` and `reporting` are used by them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "config.parsing": ["parse_recipe"],
        "config.recipe": ["Recipe"],
        "experiment.experiment": ["run_experiment"],
        "models.checkpoint": ["load_checkpoint"],
        "models.factory": ["create_model"],
    },
)

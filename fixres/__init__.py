"""Train image classifiers at small resolutions, fine-tune them for a larger one, and test them there.

What a user calls is listed here and lives in `api`. Importing this package is quick: torch is imported when it is
needed. `config` has the settings, `models` the networks, `training` the training loop, `finetuning` FixRes,
`evaluation` the accuracies, `resolution` the advice on test resolutions, `projection` the cost of a run, `experiment`
whole runs, and `transfer` detection and segmentation with a trained backbone. `augment`, `distributed`,
`fault_tolerance`, `observability` and `reporting` are used by them.
"""

from typing import Any

import lazy_loader as lazy

from fixres.pipelines.runtime.garbage import without_collection

_load, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "api.crop_dataset": ["CropDataset"],
        "api.data": ["advise", "convert", "index", "inspect"],
        "api.learning": ["FinetuneOutcome", "evaluate", "finetune"],
        "api.loader": ["Loader"],
        "api.network": ["Network", "Prediction", "load"],
        "api.recipes": ["train"],
        "api.transfer": ["backbone", "detector", "segmenter"],
        "config.recipe": ["FinetuneConfig", "Recipe"],
        "evaluation.accuracy": ["EvalResult"],
        "experiment.report": ["Report"],
        "finetuning.loop": ["FinetuneResult"],
        "models.checkpoint": ["CheckpointInfo"],
        "pipelines.conversion.converter": ["Conversion"],
        "pipelines.crop_index.building": ["Indexed"],
        "pipelines.inspection.facts": ["Inspection"],
        "pipelines.runtime.allocator": ["tune_allocator"],
        "pipelines.spec": ["EvalCrop", "InputError", "ShiftCrop", "TrainCrop"],
        "resolution.advice": ["Advice"],
    },
)


def __getattr__(name: str) -> Any:
    with without_collection():
        return _load(name)

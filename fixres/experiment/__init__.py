"""Whole runs: the variants of a recipe, trained in turn, evaluated, fine-tuned and compared in a report.

experiment runs them; variant trains one; variant_parts has its network, data, evaluation and output; final_evaluation
is what follows the training; report and figures write the results; run_folder and resume are about files.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "experiment": ["run_experiment"],
        "report": ["Report", "read_report"],
        "results": ["VariantResult"],
        "variant": ["VariantRun"],
        "variant_parts": ["VariantPlan"],
    },
)

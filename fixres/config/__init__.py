"""Settings: frozen dataclasses with checks, and how YAML files and command-line options become one.

recipe, optim, augment and fault_tolerance have the dataclasses. parsing merges files and options, validation checks
them with pydantic, legacy reads former names.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "augment": ["AugmentConfig", "DistillConfig", "RegularizationConfig"],
        "fault_tolerance": ["FaultToleranceConfig"],
        "parsing": ["named_recipes", "parse", "parse_recipe", "save_recipe"],
        "recipe": ["FinetuneConfig", "ModelConfig", "OptimConfig", "Recipe", "ResolutionConfig", "VariantConfig"],
    },
)

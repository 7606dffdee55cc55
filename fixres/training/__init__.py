"""The training loop: one epoch over a loader, losses, optimizer, schedules of learning rate and resolution.

It trains any network on any loader; `fixres.experiment` runs it for the variants of a recipe.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "losses": ["BinaryCrossEntropy", "CrossEntropy", "Distilled", "Teacher", "label_loss"],
        "optimizer": ["Stepper", "WeightEMA", "create_optimizer"],
        "progress": ["EpochResult", "Progress"],
        "schedule": ["resolution_at", "training_lr"],
        "trainer": ["Trainer", "create_trainer"],
    },
)

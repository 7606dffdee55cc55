"""The trainer that a recipe asks for: optimiser, average, batch transform and loss put together."""

from __future__ import annotations

from torch import nn

from fixres.augment_batch import BatchTransform
from fixres.averaging import Average
from fixres.config import DistillConfig, Recipe
from fixres.distill import Distilled, Teacher, open_teacher
from fixres.hardware import Precision
from fixres.losses import CrossEntropy, Loss
from fixres.models import Normalise
from fixres.optim import Stepper, create_optimizer
from fixres.teacher_cache import CachedTeacher, with_cache
from fixres.train import Trainer


def create_trainer(
    recipe: Recipe,
    net: nn.Module,
    normalise: Normalise,
    precision: Precision,
    classes: tuple[str, ...],
    average: Average | None = None,
) -> Trainer:
    """A trainer of `net` with every trick that is on in `recipe`.

    Args:
        recipe: optim, augment, distill, compile and seed count.
        net: the network, on its device.
        normalise: from uint8 NHWC batches to its input, likewise.
        precision: autocast type and device.
        classes: of the data in label order.
        average: told of each update.

    Raises:
        InputError: a teacher that cannot be opened.
    """
    optim, augment = recipe.optim, recipe.augment
    stepper = Stepper(create_optimizer(net, optim), precision, optim.accumulate or 1, average)
    transform = BatchTransform(augment, len(classes), recipe.seed) if augment is not None else None
    loss: Loss = CrossEntropy(optim.label_smoothing)
    if recipe.distill is not None:
        loss = Distilled(loss, _teacher(recipe.distill, classes, precision), recipe.distill.temperature)
    return Trainer(
        net, normalise, stepper, precision, optim.label_smoothing, recipe.compile, transform, loss, recipe.seed
    )


def _teacher(config: DistillConfig, classes: tuple[str, ...], precision: Precision) -> Teacher | CachedTeacher:
    teacher = open_teacher(config, classes, precision.device)
    if config.cache is None:
        return teacher
    return with_cache(teacher, config.cache, len(classes), config.cache_dtype, precision.name)

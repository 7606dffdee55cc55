"""The trainer that a recipe asks for: optimizer, average, batch transform and loss put together."""

from __future__ import annotations

from torch import nn

from fixres.augment.color import BatchTransform
from fixres.config.recipe import DistillConfig, Recipe
from fixres.models.factory import Normalize
from fixres.models.precision import Precision
from fixres.training.distillation import Distilled, Teacher, open_teacher
from fixres.training.ema import Average
from fixres.training.loss import CrossEntropy, Loss
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.teacher_cache import CachedTeacher, with_cache
from fixres.training.trainer import Trainer


def create_trainer(
    recipe: Recipe,
    net: nn.Module,
    normalize: Normalize,
    precision: Precision,
    classes: tuple[str, ...],
    average: Average | None = None,
) -> Trainer:
    """A trainer of `net` with every trick that is on in `recipe`.

    Args:
        recipe: optim, augment, distill, compile and seed count.
        net: the network, on its device.
        normalize: from uint8 NHWC batches to its input, likewise.
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
        net, normalize, stepper, precision, optim.label_smoothing, recipe.compile, transform, loss, recipe.seed
    )


def _teacher(config: DistillConfig, classes: tuple[str, ...], precision: Precision) -> Teacher | CachedTeacher:
    teacher = open_teacher(config, classes, precision.device)
    if config.cache is None:
        return teacher
    return with_cache(teacher, config.cache, len(classes), config.cache_dtype, precision.name)

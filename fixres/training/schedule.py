"""Learning rate and training resolution over epochs: pure functions."""

from __future__ import annotations

import math
from bisect import bisect_right

from fixres.config.recipe import OptimConfig, ResolutionConfig, StepDecay

LR_BATCH_SIZE = 256  # the batch size that learning rates in recipes are meant for


def scaled_lr(lr: float, global_batch_size: int) -> float:
    """Linear scaling rule (arXiv 1812.01187, section 3.1): `lr` is meant for a batch of 256."""
    return lr * global_batch_size / LR_BATCH_SIZE


def lr_at(epoch: float, epochs: float, peak: float, warmup_epochs: float = 0.0) -> float:
    """Linear warm-up from 0, then half a cosine to 0 (arXiv 1812.01187, sections 3.1 and 5.1).

    Args:
        epoch: position in epochs, fractional, in [0, epochs].
        epochs: length of the run; a run shorter than `warmup_epochs` only warms up.
        peak: rate at the end of the warm-up.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    if epochs <= warmup_epochs:
        return peak
    return 0.5 * peak * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))


def stepped_lr(epoch: float, lr: float, step_epochs: int) -> float:
    """`lr`, divided by 10 after every `step_epochs`, as the published code of FixRes does."""
    return lr * 0.1 ** int(epoch // step_epochs)


def milestone_lr(epoch: float, peak: float, steps: StepDecay, warmup_epochs: float = 0.0) -> float:
    """Linear warm-up from 0 to `peak`, which falls at each milestone (arXiv 1812.01187, section 2.1).

    With `steps.decay_epochs` it falls every so many epochs, counted from the start (arXiv 2104.00298, section 5.1).
    """
    warm = min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0
    num_steps = bisect_right(steps.milestones, epoch) if steps.decay_epochs is None else epoch // steps.decay_epochs
    return warm * peak * steps.factor**num_steps


def training_lr(epoch: float, epochs: int, config: OptimConfig) -> float:
    """Learning rate at `epoch` (fractional) of a training of `epochs` epochs, scaled to its batch size."""
    peak = scaled_lr(config.lr, config.batch_size)
    if config.steps is not None:
        return milestone_lr(epoch, peak, config.steps, config.warmup_epochs)
    return lr_at(epoch, epochs, peak, config.warmup_epochs)


def resolution_at(epoch: int, config: ResolutionConfig) -> int:
    """Training resolution in pixels at `epoch`: a multiple of `config.multiple`."""
    starts = [start for start, _ in config.points]
    i = bisect_right(starts, epoch) - 1
    start, resolution = config.points[i]
    if config.ramp == "step" or i + 1 == len(config.points):
        return resolution
    next_start, next_resolution = config.points[i + 1]
    exact = resolution + (next_resolution - resolution) * (epoch - start) / (next_start - start)
    # Rounding down also on the way to a smaller size keeps every step within the two points.
    return max(int(exact) // config.multiple * config.multiple, config.multiple)

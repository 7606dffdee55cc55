"""All augmentation of a training batch on its device, in order: operations, colors, mixing, erasing.

Random numbers are drawn on the host. They are functions of (seed, epoch, step) and of an image's position in the batch
of all processes, so a run repeats, and is the same on every device. Only the noise of erased pixels differs by device.
Operations, colors and erasing do not depend on the number of processes. Mixing has one weight and box for the whole
batch, in all processes; images are mixed with others of their process.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fixres.augment.color import color_matrices, draw_factors, pca_shifts, recolored
from fixres.augment.erasing import draw_boxes, erase
from fixres.augment.mixup import draw_mix, mixed
from fixres.augment.operations import Program, applied
from fixres.augment.policies import draw_program
from fixres.augment.tensor_operations import on_device
from fixres.config.augment import AugmentConfig
from fixres.distributed.process_group import num_processes, rank
from fixres.pipelines.spec import InputError

_COLORS, _MIXING, _OPERATIONS, _ERASING = (
    1,
    2,
    3,
    4,
)  # streams of random numbers; crops and color jitter have other keys


class BatchTransform:
    """Augmentation of batches.

    Attributes:
        config: may be changed between two epochs.
    """

    def __init__(self, config: AugmentConfig, num_classes: int, seed: int) -> None:
        self.config, self._num_classes, self._seed, self._epoch = config, num_classes, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch of the next steps."""
        self._epoch = epoch

    def __call__(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The augmented batch of a step, with soft labels if images are mixed.

        Args:
            images: uint8 (B, H, W, 3), square, on the device; B is the same in all processes.
            labels: int64 (B,) on the device.
            step: number of the batch in its epoch.

        Returns:
            uint8 (B, H, W, 3), and either the labels or float32 (B, num_classes), each row with sum 1.

        Raises:
            InputError: images of another type or layout.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(
                f"images are {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}, not uint8 (B, H, W, 3); "
                "of fixres.Loader use normalize=False and images.permute(0, 2, 3, 1)"
            )
        config = self.config
        if config.operates:
            images = applied(images, self._program(images, self._rng(_OPERATIONS, step)))
        if config.color or config.pca:
            images = self._recolor(images, self._rng(_COLORS, step))
        targets = labels
        if config.mixes:
            mix = draw_mix(config, images.shape[1], self._rng(_MIXING, step))
            images, targets = mixed(images, labels, mix, self._num_classes)
        if config.re_prob:
            images = self._erase(images, self._rng(_ERASING, step))
        return images, targets

    # Drawn for the images of all processes, of which this one has an equal part; 8192 images take a few milliseconds.

    def _program(self, images: Tensor, rng: np.random.Generator) -> Program:
        num, own = _share(images)
        program = draw_program(self.config, num, images.shape[1], rng)
        return Program(*(part[own] for part in program[:3]), program.fill)

    def _recolor(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        num, own = _share(images)
        matrices = color_matrices(draw_factors(self.config.color, num, rng)[own])
        shifts = pca_shifts(self.config.pca * rng.standard_normal((num, 3))[own])
        both = np.concatenate([matrices.reshape(-1, 9), shifts], axis=1).astype(np.float32)
        both = on_device(both, images.device)  # one transfer
        return recolored(images, both[:, :9].reshape(-1, 3, 3), both[:, 9:])

    def _erase(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        num, own = _share(images)
        boxes, present = draw_boxes(self.config.re_prob, self.config.re_count, num, images.shape[1], rng)
        colors, seeds = rng.standard_normal((*present.shape, 3)), rng.integers(0, 2**63, num)
        mode = self.config.re_mode
        return erase(images, boxes[own], present[own], mode, colors[own], int(seeds[own][0]))

    def _rng(self, stream: int, step: int) -> np.random.Generator:
        key = np.array([self._seed, stream], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, self._epoch, step]))


def _share(images: Tensor) -> tuple[int, slice]:
    """Images in the batches of all processes, and which of them are this one's."""
    return len(images) * num_processes(), slice(len(images) * rank(), len(images) * (rank() + 1))

"""Fine-tuning on the coded images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.finetuning.loop import FinetuneContext, finetune
from fixres.models.factory import Normalize
from fixres.models.predictor import Predictor
from fixres.models.probe import probe_network
from fixres.pipelines.spec import EvalCrop, Loader, TrainCrop
from fixres.training.progress import EpochResult
from tests.fixres.conftest import CPU


def finetune_on_coded(
    net: nn.Module,
    open_coded: Callable[..., Loader],
    config: FinetuneConfig,
    test_res: int = 32,
    batch_size: int = 8,
    seed: int = 0,
) -> tuple[list[EpochResult], Loader]:
    """Fine-tunes `net` on the 24 coded images; returns the epochs' results and the loader of shuffled images."""
    opened: list[Loader] = []

    def open_train(**fields: Any) -> Loader:
        opened.append(open_coded(seed=seed, **fields))
        return opened[-1]

    optim = OptimConfig(batch_size=batch_size)
    context = FinetuneContext(Predictor(net, Normalize(), CPU), open_train, EvalCrop(), TrainCrop(), 32, optim, seed)
    return finetune(context, config, probe_network(net, test_res)).epochs, opened[0]

"""The arms of a recipe on the same data, seeds and epochs, side by side."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from fixres.arm import Arm
from fixres.config import Recipe
from fixres.environment import capture
from fixres.hardware import Precision, choose_device, choose_precision
from fixres.report import Report, write_report
from fixres.runlog import RunLog
from pipelines.spec import Loader, OpenLoader


def run_experiment(recipe: Recipe, open_loader: OpenLoader, data: dict[str, object]) -> Report:
    """Trains, tests and fixes every arm of `recipe` and writes the report into its run folder.

    The arms take turns epoch by epoch: on a shared machine a slow minute then slows all of them.

    Args:
        recipe: what to do.
        open_loader: opens "train" or "val" with fields of LoaderConfig.
        data: what the report says of the data: its path, engine, sizes, preparation time.

    Returns:
        What was written to report.json.
    """
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    environment = capture() | {"precision": precision.name, "device": str(device)}
    torch.backends.cudnn.benchmark = True
    with ExitStack() as stack:
        log = RunLog(recipe.folder, recipe, environment)
        stack.callback(log.close)
        test_loader = _open_test(recipe, open_loader)
        stack.callback(test_loader.close)
        arms = _open_arms(recipe, open_loader, test_loader, precision, log, stack)
        crops = {arm.name: arm.sample_crops() for arm in arms}
        _train(arms)
        results = [arm.finish() for arm in arms]
    report = Report(
        recipe,
        results,
        environment,
        data | {"num_train": arms[0].loader.num_samples, "num_val": test_loader.num_samples},
        crops,
    )
    write_report(report, recipe.folder)
    return report


def _open_test(recipe: Recipe, open_loader: OpenLoader) -> Loader:
    resolution = recipe.sweep_resolutions()[0]
    return open_loader(
        "val", crop=recipe.eval_crop, resolution=resolution, batch_size=recipe.optim.batch_size, seed=recipe.seed
    )


def _open_arms(
    recipe: Recipe,
    open_loader: OpenLoader,
    test_loader: Loader,
    precision: Precision,
    log: RunLog,
    stack: ExitStack,
) -> list[Arm]:
    arms = []
    for name, config in recipe.arms.present().items():
        arm = Arm(name, config, recipe, open_loader, test_loader, precision, log)
        stack.callback(arm.loader.close)
        arms.append(arm)
    return arms


def _train(arms: list[Arm]) -> None:
    for epoch in range(max(arm.config.epochs for arm in arms)):
        for arm in arms:
            if epoch < arm.config.epochs:
                arm.train_epoch(epoch)

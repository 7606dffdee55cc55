"""The end of an arm: tests over a row of resolutions, the fix, tests again, weights, result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from fixres.config.recipe import FixConfig
from fixres.distributed.process_group import share_state
from fixres.evaluation.accuracy import EvalResult, at, sweep
from fixres.experiment.arm import Arm
from fixres.experiment.results import ArmResult
from fixres.finetuning.adaptation import adapt
from fixres.finetuning.loop import finetune, fix_crop
from fixres.observability.console import say
from fixres.training.trainer import EpochResult
from pipelines.spec import EvalCrop


def finish(arm: Arm, keep: Callable[[], None] = lambda: None) -> ArmResult:
    """Tests over the sweep, fixes, tests again, saves the weights before and after the fix.

    Args:
        arm: with all its epochs done. Its training loader is closed, and it cannot be trained any more.
        keep: writes the run's state, in all processes; called when the arm is tested, and when it is fixed.
    """
    done, config = arm.ending, arm.config
    if done.before is None:
        done.before = _test_trained(arm)
        keep()
    arm.loader.close()
    arm.trainer = None  # two trainers of one network would both ask other processes for its gradients
    after: list[EvalResult] = []
    if config.fix is not None:
        if done.fix_epochs is None:
            done.fix_epochs = _fix(arm, config.fix)
            keep()
        after = _sweep(arm, "after the fix")
        arm.log.write(arm.name, "test", config.epochs + len(done.fix_epochs), at(after, config.test_res))
        arm.save("fixed.pt", fixed=True)
    arm.result = _result(arm, done.before, after, done.fix_epochs or [])
    return arm.result


def _test_trained(arm: Arm) -> list[EvalResult]:
    before = _sweep(arm, "after training")
    arm.add_to_curve(arm.config.epochs, at(before, arm.config.test_res))
    arm.save("trained.pt", fixed=False)
    return before


def _sweep(arm: Arm, when: str) -> list[EvalResult]:
    with arm.clock.stage("evaluate"):
        resolutions = arm.recipe.sweep_resolutions()
        title = f"{arm.name}: test {when}"
        return sweep(arm.tested, arm.normalise, arm.test_loader, arm.precision, resolutions, title)


def _fix(arm: Arm, config: FixConfig) -> list[EpochResult]:
    recipe, test_res, size = arm.recipe, arm.config.test_res, config.batch_size
    crop = fix_crop(config, recipe.eval_crop.crop_pct, recipe.train_crop)
    with arm.clock.stage("fix"):
        if config.adapt != "none":
            _adapt(arm, config)
        with closing(arm.open_train(crop, test_res, size)) as loader:
            results = finetune(
                arm.tested,
                arm.normalise,
                loader,
                config,
                recipe.optim,
                arm.precision,
                recipe.seed,
                lambda: arm.open_train(crop, test_res, size, shuffle=False, drop_last=False),
            )
    for epoch, result in enumerate(results):
        arm.log.write(arm.name, "fix", arm.config.epochs + epoch + 1, result)
    return results


def _adapt(arm: Arm, config: FixConfig) -> None:
    crop = EvalCrop(arm.recipe.eval_crop.crop_pct)
    with closing(arm.open_train(crop, arm.config.test_res, config.batch_size)) as loader:
        line = adapt(arm.tested, arm.normalise, loader, config, arm.precision, arm.resolutions[-1])
    share_state(arm.tested)  # each process has adapted to its own images
    say(f"{arm.name}: {line}")


def _result(arm: Arm, before: list[EvalResult], after: list[EvalResult], fix_epochs: list[EpochResult]) -> ArmResult:
    test_res, seconds = arm.config.test_res, arm.clock.seconds
    final = at(after or before, test_res)
    num_images = sum(epoch.num_images for epoch in arm.epochs)
    return ArmResult(
        name=arm.name,
        train_res=arm.resolutions[-1],
        train_res_by_epoch=arm.resolutions,
        test_res=test_res,
        epochs=arm.config.epochs,
        top1_before_fix=at(before, test_res).top1,
        top1=final.top1,
        top5=final.top5,
        class_mean_top1=final.class_mean_top1,
        train_seconds=seconds["train"],
        fix_seconds=seconds["fix"],
        evaluate_seconds=seconds["evaluate"],
        program_seconds=arm.clock.program_seconds,
        paused_seconds=arm.clock.paused_seconds,
        images_per_second=num_images / seconds["train"],
        data_wait_share=sum(epoch.wait_seconds for epoch in arm.epochs) / seconds["train"],
        num_bad_samples=arm.num_bad_samples,
        sweep_before=before,
        sweep_after=after,
        curve=arm.curve,
        fix_epochs=fix_epochs,
    )

"""The end of a variant: tests over a row of resolutions, the fix, tests again, weights, result."""

from __future__ import annotations

from collections.abc import Callable

from fixres.config.recipe import FinetuneConfig
from fixres.evaluation.accuracy import EvalResult, at, sweep
from fixres.experiment.results import VariantResult
from fixres.experiment.variant import VariantRun
from fixres.finetuning.loop import FinetuneContext, finetune
from fixres.models.probe import probe_network
from fixres.training.trainer import EpochResult


def finish(variant: VariantRun, keep: Callable[[], None] = lambda: None) -> VariantResult:
    """Tests over the sweep, fixes, tests again, saves the weights before and after the fix.

    Args:
        variant: with all its epochs done. Its training loader is closed, and it cannot be trained any more.
        keep: writes the run's state, in all processes; called when the variant is tested, and when it is fixed.
    """
    done, config = variant.ending, variant.config
    if done.before is None:
        done.before = _test_trained(variant)
        keep()
    variant.loader.close()
    variant.trainer = None  # two trainers of one network would both ask other processes for its gradients
    after: list[EvalResult] = []
    if config.finetune is not None:
        if done.finetune_epochs is None:
            done.finetune_epochs = _finetune(variant, config.finetune)
            keep()
        after = _sweep(variant, "after the fix")
        variant.run_log.write(
            variant.name, "test", config.epochs + len(done.finetune_epochs), at(after, config.test_res)
        )
        variant.save("finetuned.pt", finetuned=True)
    variant.result = _result(variant, done.before, after, done.finetune_epochs or [])
    return variant.result


def _test_trained(variant: VariantRun) -> list[EvalResult]:
    before = _sweep(variant, "after training")
    variant.add_to_curve(variant.config.epochs, at(before, variant.config.test_res))
    variant.save("trained.pt", finetuned=False)
    return before


def _sweep(variant: VariantRun, when: str) -> list[EvalResult]:
    with variant.clock.stage("evaluate"):
        resolutions = variant.recipe.sweep_resolutions()
        title = f"{variant.name}: test {when}"
        return sweep(variant.tested, variant.normalize, variant.test_loader, variant.precision, resolutions, title)


def _finetune(variant: VariantRun, config: FinetuneConfig) -> list[EpochResult]:
    recipe = variant.recipe
    with variant.clock.stage("finetune"):
        context = FinetuneContext(
            net=variant.tested,
            normalize=variant.normalize,
            precision=variant.precision,
            open_train=variant.open_train,
            eval_crop=recipe.eval_crop,
            train_crop=recipe.train_crop,
            train_res=variant.resolutions[-1],
            optim=recipe.optim,
            seed=recipe.seed,
        )
        results = finetune(context, config, probe_network(context.net, variant.config.test_res)).epochs
    for epoch, result in enumerate(results):
        variant.run_log.write(variant.name, "finetune", variant.config.epochs + epoch + 1, result)
    return results


def _result(
    variant: VariantRun, before: list[EvalResult], after: list[EvalResult], finetune_epochs: list[EpochResult]
) -> VariantResult:
    test_res, seconds = variant.config.test_res, variant.clock.seconds
    final = at(after or before, test_res)
    num_images = sum(epoch.num_images for epoch in variant.epochs)
    return VariantResult(
        name=variant.name,
        train_res=variant.resolutions[-1],
        train_res_by_epoch=variant.resolutions,
        test_res=test_res,
        epochs=variant.config.epochs,
        top1_before_finetune=at(before, test_res).top1,
        top1=final.top1,
        top5=final.top5,
        class_mean_top1=final.class_mean_top1,
        train_seconds=seconds["train"],
        finetune_seconds=seconds["finetune"],
        evaluate_seconds=seconds["evaluate"],
        wall_seconds=variant.clock.wall_seconds,
        paused_seconds=variant.clock.paused_seconds,
        images_per_second=num_images / seconds["train"],
        data_wait_share=sum(epoch.wait_seconds for epoch in variant.epochs) / seconds["train"],
        num_bad_samples=variant.num_bad_samples,
        sweep_before=before,
        sweep_after=after,
        curve=variant.curve,
        finetune_epochs=finetune_epochs,
    )

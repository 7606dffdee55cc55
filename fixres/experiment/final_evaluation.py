"""The final evaluation of a variant: evaluation over resolutions, FixRes fine-tuning, evaluation again, result."""

from __future__ import annotations

from collections.abc import Callable

from fixres.config.recipe import FinetuneConfig
from fixres.evaluation.accuracy import EvalResult, at
from fixres.experiment.results import CurvePoint, TrainingState, VariantResult
from fixres.experiment.variant_parts import Evaluator, TrainingData, VariantNetwork, VariantOutput, VariantPlan
from fixres.finetuning.loop import FinetuneContext, finetune
from fixres.models.probe import probe_network, set_input_size
from fixres.training.progress import EpochResult


def finish(
    plan: VariantPlan,
    network: VariantNetwork,
    data: TrainingData,
    evaluator: Evaluator,
    output: VariantOutput,
    state: TrainingState,
    save: Callable[[], None],
) -> VariantResult:
    """Evaluates and fine-tunes a trained network; saves its weights before and after. Closes the training loader.

    Args:
        state: the steps that are done are not repeated.
        save: saves a training checkpoint; called after the first evaluation and after fine-tuning.
    """
    config = plan.config
    if state.sweep_before is None:
        state.sweep_before = _evaluate_trained(plan, network, evaluator, output, state)
        save()
    data.loader.close()
    sweep_after: list[EvalResult] = []
    if config.finetune is not None:
        if state.finetune_epochs is None:
            with state.clock.stage("finetune"):
                state.finetune_epochs = _finetune(plan, network, data, config.finetune)
            for epoch, result in enumerate(state.finetune_epochs, start=config.epochs + 1):
                output.write("finetune", epoch, result)
            save()
        sweep_after = evaluator.sweep("after fine-tuning")
        output.write("test", config.epochs + len(state.finetune_epochs), at(sweep_after, config.test_res))
        output.save_weights("finetuned.pt", network.evaluated, config.epochs, finetuned=True)
    return _result(plan, state, sweep_after, data.num_bad_samples())


def add_to_curve(state: TrainingState, output: VariantOutput, result: EvalResult) -> None:
    """Records an evaluation after the epochs so far."""
    num_epochs = len(state.epochs)
    state.curve.append(CurvePoint(num_epochs, state.clock.train_seconds, result.top1, state.epochs[-1].loss))
    output.write("test", num_epochs, result)


def _evaluate_trained(
    plan: VariantPlan, network: VariantNetwork, evaluator: Evaluator, output: VariantOutput, state: TrainingState
) -> list[EvalResult]:
    results = evaluator.sweep("after training")
    add_to_curve(state, output, at(results, plan.config.test_res))
    output.save_weights("trained.pt", network.evaluated, plan.config.epochs)
    return results


def _finetune(
    plan: VariantPlan, network: VariantNetwork, data: TrainingData, config: FinetuneConfig
) -> list[EpochResult]:
    context = FinetuneContext(
        predictor=network.predictor,
        open_train=data.open,
        eval_crop=plan.recipe.eval_crop,
        train_crop=plan.recipe.train_crop,
        train_res=plan.resolutions[-1],
        optim=plan.recipe.optim,
        seed=plan.recipe.seed,
    )
    set_input_size(network.evaluated, plan.config.test_res, always=config.layers == "all")
    return finetune(context, config, probe_network(network.evaluated, plan.config.test_res)).epochs


def _result(
    plan: VariantPlan, state: TrainingState, sweep_after: list[EvalResult], num_bad_samples: int
) -> VariantResult:
    test_res, clock, sweep_before = plan.config.test_res, state.clock, state.sweep_before or []
    final = at(sweep_after or sweep_before, test_res)
    return VariantResult(
        name=plan.name,
        train_res=plan.resolutions[-1],
        train_res_by_epoch=plan.resolutions,
        test_res=test_res,
        epochs=plan.config.epochs,
        top1_before_finetune=at(sweep_before, test_res).top1,
        top1=final.top1,
        top5=final.top5,
        class_mean_top1=final.class_mean_top1,
        train_seconds=clock.train_seconds,
        finetune_seconds=clock.seconds["finetune"],
        evaluate_seconds=clock.seconds["evaluate"],
        wall_seconds=clock.wall_seconds,
        paused_seconds=clock.paused_seconds,
        images_per_second=sum(epoch.num_images for epoch in state.epochs) / clock.train_seconds,
        data_wait_share=sum(epoch.wait_seconds for epoch in state.epochs) / clock.train_seconds,
        num_bad_samples=num_bad_samples,
        sweep_before=sweep_before,
        sweep_after=sweep_after,
        curve=state.curve,
        finetune_epochs=state.finetune_epochs or [],
    )

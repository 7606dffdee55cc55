"""Small versions of the recipes for ImageNet train; their optimizers and losses are timm's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import timm.optim
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy as Reference
from torch import nn

from fixres.config.parsing import parse_recipe
from fixres.config.recipe import OptimConfig
from fixres.experiment.run_folder import RunLog
from fixres.experiment.variant import VariantRun
from fixres.experiment.variant_parts import VariantPlan
from fixres.models.checkpoint import load_checkpoint
from fixres.models.factory import create_model
from fixres.models.probe import set_input_size
from fixres.pipelines.spec import InputError, Loader
from fixres.training.losses import label_loss
from fixres.training.optimizer import create_optimizer, set_lr
from fixres.training.regularization import set_drop_rate
from tests.fixres.conftest import CPU, TINY

OpenCoded = Callable[..., Loader]
_IMAGES = torch.zeros(6, 8, 8, 3, dtype=torch.uint8)  # which losses of labels do not look at


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_timms(smoothing: float, threshold: float | None) -> None:
    """With hard labels and with mixed ones, which timm smooths in its Mixup."""
    logits, labels = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 4, 0])
    config = OptimConfig(bce_loss=True, bce_target_thresh=threshold, label_smoothing=smoothing)
    loss, reference = label_loss(config), Reference(smoothing, threshold)
    torch.testing.assert_close(loss(logits, labels, _IMAGES), reference(logits, labels))
    for weight in (0.7, 0.15):
        mixed = loss(logits, mixup_target(labels, 5, weight), _IMAGES)
        torch.testing.assert_close(mixed, reference(logits, mixup_target(labels, 5, weight, smoothing)))
        assert not torch.isclose(mixed, nn.functional.cross_entropy(logits, mixup_target(labels, 5, weight)))


@pytest.mark.parametrize(
    ("config", "kind", "defaults"),
    [
        (OptimConfig(), torch.optim.SGD, {"nesterov": True, "momentum": 0.9}),
        (OptimConfig(opt="momentum", momentum=0.8), torch.optim.SGD, {"nesterov": False, "momentum": 0.8}),
        (OptimConfig(opt="lamb", opt_eps=1e-5), timm.optim.Lamb, {"eps": 1e-5, "max_grad_norm": 1.0}),
        (OptimConfig(opt="adamw"), torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        (OptimConfig(opt="rmsproptf", opt_eps=1e-3), timm.optim.RMSpropTF, {"alpha": 0.9, "eps": 1e-3}),
    ],
    ids=lambda one: getattr(one, "opt", ""),
)
def test_optimizers_are_timms(config: OptimConfig, kind: type, defaults: dict[str, object]) -> None:
    """They have timm's settings, spare norms and biases from weight decay, and make a step."""
    net = create_model(TINY, 3)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = create_optimizer(net, config)
    assert type(optimizer) is kind and optimizer.defaults | defaults == optimizer.defaults
    spared = {len(p.shape) for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert spared == {1} and {group["weight_decay"] for group in optimizer.param_groups} == {0, config.weight_decay}
    set_lr(optimizer, 0.1)
    net(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("resnet10t", {}), ("convnext_atto", {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}),
     ("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 1}), ("efficientnet_lite0", {})],
)  # fmt: skip
def test_the_dropout_before_the_classifier_can_be_set(name: str, kwargs: dict[str, object]) -> None:
    """At a rate near 1 hardly any feature reaches the logits: two passes in training mode give little but the bias."""
    net = timm.create_model(name, num_classes=3, **kwargs).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    images = torch.randn(16, 3, 32, 32)
    set_drop_rate(net, 0.0)
    plain = net(images)
    assert torch.equal(plain, net(images))
    set_drop_rate(net, 0.5)
    dropped = net(images)
    assert not torch.allclose(plain, dropped) and not torch.allclose(dropped, net(images))
    with pytest.raises(InputError, match=r"Linear has no dropout before its classifier; omit regularization.drop_rate"):
        set_drop_rate(nn.Linear(2, 2), 0.1)


def small(name: str, folder: Path, *words: str) -> VariantPlan:
    """The recipe of ImageNet for a small network and the coded images; `words` are further options."""
    shrunk = f"--config imagenet/{name} --output {folder} --device cpu --precision fp32 --eval-every 0 --sweep 48"
    shrunk += " --optim.batch-size 8 --optim.warmup-epochs 0"
    recipe = parse_recipe([*shrunk.split(), *words])
    return VariantPlan(next(iter(recipe.variants)), recipe)


def trained(
    plan: VariantPlan,
    open_coded: OpenCoded,
    watch: Callable[[VariantRun], None] = lambda _: None,
    save: Callable[[VariantRun], None] = lambda _: None,
    state: dict[str, Any] | None = None,
) -> VariantRun:
    """The variant after all its epochs, fine-tuning and test, perhaps resumed from a state.

    `watch` is called after each epoch, `save` when the final evaluation saves a training checkpoint.
    """
    with closing(RunLog(plan.recipe.folder, plan.recipe, {})) as log:
        run = VariantRun(plan, open_coded, open_coded("val"), CPU, log)
        if state is not None:
            run.load_state_dict(state)
        while not run.is_trained:
            run.train_epoch()
            watch(run)
        run.finish(lambda: save(run))
    return run


def test_progressive_learning(tmp_path: Path, open_coded: OpenCoded) -> None:
    """EfficientNetV2-M's: RandAugment, mixup and dropout grow with the resolution, epoch by epoch."""
    words = ["--model", TINY.name, "--model.kwargs", str(TINY.kwargs), "--variants.progressive.epochs", "3"]
    words += ["--variants.progressive.resolution.points", "[[0, 32], [1, 40], [2, 48]]"]
    plan = small("efficientnetv2_m", tmp_path / "run", *words, "--variants.progressive.test-res", "48")
    seen: list[tuple[object, ...]] = []

    def watch(run: VariantRun) -> None:
        assert run.trainer is not None and run.trainer._transform is not None
        config = run.trainer._transform.config
        seen.append((config.auto_augment, config.mixup, run.network.net.drop_rate))

    result = trained(plan, open_coded, watch).result
    assert seen == [
        ("rand-m5-n2-mmax20", 0.0, 0.1),
        ("rand-m12-n2-mmax20", 0.1, 0.25),
        ("rand-m20-n2-mmax20", 0.2, 0.4),
    ]
    assert result is not None and result.train_res_by_epoch == [32, 40, 48]


def test_resnet_strikes_back(tmp_path: Path, open_coded: OpenCoded) -> None:
    """A3: LAMB and binary cross entropy, whose mean over two classes starts at log 2, not at 2 log 2."""
    words = ["--model", TINY.name, "--model.kwargs", str(TINY.kwargs), "--variants.a3.epochs", "1"]
    words += ["--variants.a3.resolution.points", "[[0, 32]]", "--variants.a3.test-res", "48"]
    plan, optimizers = small("rsb_a3", tmp_path / "run", *words), []
    run = trained(plan, open_coded, lambda run: optimizers.append(run.trainer and run.trainer.stepper.optimizer))
    assert [type(one) for one in optimizers] == [timm.optim.Lamb]
    assert run.state.epochs[0].loss == pytest.approx(0.693, abs=0.1)


_VIT = {"img_size": 32, "dynamic_img_size": True, "embed_dim": 24, "depth": 2, "num_heads": 3, "init_values": 1e-4}


def test_deit3_trains_small_and_fine_tunes_the_whole_network(tmp_path: Path, open_coded: OpenCoded) -> None:
    """Trained at 32 and 48 px with one embedding for 32 px; fine-tuned at 64 px with one for 64 px, also if resumed."""
    words = ["--model.kwargs", str(_VIT), "--variants.small.epochs", "2", "--variants.small.test-res", "64"]
    words += ["--variants.small.resolution", "{points: [[0, 32], [1, 48]], multiple: 16}"]
    words += ["--variants.small.finetune.epochs", "1", "--variants.small.finetune.warmup-epochs", "0"]
    words += ["--variants.small.finetune.batch-size", "8", "--variants.small.finetune.lr", "0.01"]
    plan, states = small("deit3_small", tmp_path / "run", *words), []
    run = trained(plan, open_coded, save=lambda run: states.append(copy.deepcopy(run.state_dict())))
    assert run.result is not None and run.result.train_res_by_epoch == [32, 48]
    before, _ = load_checkpoint(tmp_path / "run" / "small" / "trained.pt")
    after, info = load_checkpoint(tmp_path / "run" / "small" / "finetuned.pt")
    assert before.pos_embed.shape == (1, 4, 24) and after.pos_embed.shape == (1, 16, 24)
    assert info.model_kwargs["img_size"] == 64 and info.finetuned
    set_input_size(before, 64, always=True)
    weights = after.state_dict()
    same = {name for name, value in before.state_dict().items() if torch.equal(value, weights[name])}
    assert not same  # every weight was trained
    again = trained(small("deit3_small", tmp_path / "again", *words), open_coded, state=states[-1])
    resumed, _ = load_checkpoint(tmp_path / "again" / "small" / "finetuned.pt")
    assert again.result is not None and again.result.top1 == run.result.top1
    assert all(torch.equal(value, weights[name]) for name, value in resumed.state_dict().items())

"""Normalization, the optimizer's groups, one epoch, evaluation and fine-tuning, each against an independent oracle."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from fixres.config.recipe import FinetuneConfig, ModelConfig, OptimConfig
from fixres.evaluation.accuracy import evaluate, sweep
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.models.predictor import Predictor
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD, InputError, Loader, TrainCrop
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.progress import Progress
from fixres.training.trainer import Trainer
from tests.fixres.conftest import CPU, TINY
from tests.fixres.finetuning.on_coded import finetune_on_coded

OpenCoded = Callable[..., Loader]


def test_normalize_agrees_with_torchvision_and_is_channels_last() -> None:
    images = torch.randint(0, 256, (3, 9, 7, 3), dtype=torch.uint8)
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    normalized = Normalize()(images)
    torch.testing.assert_close(normalized, reference(images.permute(0, 3, 1, 2)), rtol=1e-5, atol=1e-5)
    assert normalized.is_contiguous(memory_format=torch.channels_last)


def test_decay_spares_exactly_batchnorm_and_biases(tiny_net: nn.Module) -> None:
    optimizer = create_optimizer(tiny_net, OptimConfig(weight_decay=0.01))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    spared = {id(p) for m in tiny_net.modules() for n, p in m.named_parameters(recurse=False)
              if isinstance(m, nn.BatchNorm2d) or n == "bias"}  # fmt: skip
    assert len(decay) == len(list(tiny_net.parameters()))
    assert {key for key, value in decay.items() if value == 0} == spared
    assert all(group["nesterov"] for group in optimizer.param_groups)


def _trainer(net: nn.Module, smoothing: float = 0.1) -> Trainer:
    stepper = Stepper(create_optimizer(net, OptimConfig()), CPU)
    return Trainer(net, Normalize(), stepper, CrossEntropy(smoothing))


def _train(loader: Loader, epochs: int) -> tuple[list[float], nn.Module]:
    torch.manual_seed(3)
    net = create_model(TINY, 2).train()
    trainer, losses = _trainer(net), []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        losses.append(trainer.epoch(loader, _constant(0.02), "train").loss)
    return losses, net


def _constant(lr: float) -> Callable[[float], float]:
    return lambda _: lr


def test_training_repeats_bit_by_bit(open_coded: OpenCoded) -> None:
    (losses, net), (again, same_net) = (
        _train(open_coded(crop=TrainCrop(), shuffle=True, drop_last=True), epochs=2) for _ in range(2)
    )
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same_net.parameters(), strict=True))


def test_training_learns(open_coded: OpenCoded) -> None:
    losses, _ = _train(open_coded(shuffle=True), epochs=12)
    assert losses[-1] < losses[0] - 0.1


def test_an_epoch_counts_what_it_saw(open_coded: OpenCoded) -> None:
    loader = open_coded(crop=TrainCrop(), shuffle=True, drop_last=True, batch_size=10)
    seen: list[float] = []
    result = _trainer(create_model(TINY, 2)).epoch(loader, lambda done: seen.append(done) or 0.01, "train")
    assert (result.num_images, result.resolution) == (20, 32)
    assert seen == [0.0, 0.5]
    assert 0 <= result.wait_seconds <= result.seconds


@pytest.mark.parametrize(("position", "updates", "rates"), [(0, 3, [0, 0, 1, 1, 2, 2]), (8, 2, [1, 1, 2, 2]),
                                                           (12, 1, [1, 1]), (20, 0, [])])  # fmt: skip
def test_a_resumed_epoch_has_whole_updates_only(
    position: int, updates: int, rates: list[int], open_coded: OpenCoded
) -> None:
    """Two batches of 4 make an update here; batches of 6, of another number of processes, made those before."""
    loader = open_coded(crop=TrainCrop(), shuffle=True, drop_last=True, batch_size=4)
    loader.load_state_dict(loader.state_dict() | {"position": position})
    net, seen, done = create_model(TINY, 2).train(), [], []
    stepper = Stepper(create_optimizer(net, OptimConfig()), CPU, accumulate=2)
    trainer = Trainer(net, Normalize(), stepper, CrossEntropy(0.1))
    monitor = SimpleNamespace(check_loss=lambda *_: None, after_update=lambda: done.append(stepper.state_dict()) or 0.0)
    progress = Progress(position, position, float(position))
    trainer.epoch(loader, lambda share: seen.append(share) or 0.01, "train", progress=progress, monitor=monitor)
    assert len(done) == updates and seen == pytest.approx([rate / 3 for rate in rates])
    stepper.state_dict()  # no update is unfinished


def test_an_exploding_loss_ends_in_one_line(open_coded: OpenCoded) -> None:
    net = create_model(TINY, 2)
    with torch.no_grad():
        net.fc.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=r"the loss is nan; lower optim\.lr"):
        _trainer(net).epoch(open_coded(crop=TrainCrop()), _constant(0.1), "train")


def test_a_batch_too_small_for_batchnorm_ends_in_one_line(open_coded: OpenCoded) -> None:
    trainer, loader = _trainer(create_model(TINY, 2).train()), open_coded(crop=TrainCrop(), batch_size=1)
    with pytest.raises(InputError, match=r"cannot learn from 1 image at a time; raise optim\.batch_size"):
        trainer.epoch(loader, _constant(0.1), "train")


class _InfiniteAt(CrossEntropy):
    """Cross entropy that is infinite in one step; keeps its values."""

    def __init__(self, step: int) -> None:
        super().__init__(0.1)
        self.step, self.given = step, []

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        loss = super().__call__(*arguments) * (float("inf") if len(self.given) == self.step else 1)
        self.given.append(float(loss))
        return loss


@pytest.mark.parametrize("step", [0, 1])
def test_with_loss_scaling_an_infinite_loss_costs_a_step_and_not_the_epoch(step: int, open_coded: OpenCoded) -> None:
    """Only with a monitor, which counts such losses; see `LossGuard`."""
    loader, half = open_coded(crop=TrainCrop(), batch_size=6), Precision("fp16", torch.device("cpu"))
    monitor = SimpleNamespace(check_loss=lambda *_: None, after_update=lambda: 0.0)
    net, loss = create_model(TINY, 2).train(), _InfiniteAt(step)
    stepper = Stepper(create_optimizer(net, OptimConfig()), half)
    trainer = Trainer(net, Normalize(), stepper, loss)
    result = trainer.epoch(loader, _constant(0.001), "train", monitor=monitor)
    finite = [value for value in loss.given if value < float("inf")]
    assert len(finite) == 3 and all(weight.isfinite().all() for weight in net.parameters())
    assert result.loss == pytest.approx(sum(finite) / 3, rel=1e-5) and result.num_images == 24
    loss.given.clear()
    with pytest.raises(InputError, match="the loss is inf"):
        trainer.epoch(loader, _constant(0.001), "train")


class _ByBlue(nn.Module):
    """Scores class k by the distance between the image's blue and that of sample k: an oracle with known answers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("levels", 16 + 32 * torch.arange(num_classes).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        blue = (images[:, 2].mean((1, 2)) * IMAGENET_STD[2] + IMAGENET_MEAN[2]) * 255
        return -(blue[:, None] - self.levels).abs() / 32


def test_evaluation_agrees_with_counting_by_hand(open_coded: OpenCoded) -> None:
    loader = open_coded(batch_size=7)
    net, normalize = _ByBlue(2), Normalize()
    result = evaluate(Predictor(net, normalize, CPU), loader)
    labels, logits = [], []
    for batch in loader:
        labels.append(batch.labels.numpy())
        logits.append(net(normalize(batch.images)).numpy())
    label, logit = np.concatenate(labels), np.concatenate(logits)
    right = logit.argmax(1) == label
    log_softmax = logit - np.log(np.exp(logit).sum(1, keepdims=True))
    assert result.num_images == 24
    assert 0.3 < right.mean() < 1
    assert result.top1 == pytest.approx(right.mean())
    assert result.top5 == 1.0
    assert result.class_mean_top1 == pytest.approx(np.mean([right[label == k].mean() for k in (0, 1)]))
    assert result.loss == pytest.approx(-log_softmax[np.arange(24), label].mean(), rel=1e-4)


def test_a_sweep_tests_at_each_resolution(tiny_net: nn.Module, open_coded: OpenCoded) -> None:
    results = sweep(Predictor(tiny_net, Normalize(), CPU), open_coded(), [32, 48, 40], "test")
    assert [result.test_res for result in results] == [32, 48, 40]


def test_a_network_of_other_classes_is_refused(open_coded: OpenCoded) -> None:
    with pytest.raises(InputError, match="the network has 5 classes, the data 2"):
        evaluate(Predictor(create_model(TINY, 5), Normalize(), CPU), open_coded())


@pytest.mark.parametrize("layers", ["classifier", "classifier_bn"])
def test_fine_tuning_changes_the_trainable_layers_and_nothing_else(
    layers: str, tiny_net: nn.Module, open_coded: OpenCoded
) -> None:
    before = {name: value.clone() for name, value in tiny_net.state_dict().items()}
    config = FinetuneConfig(epochs=2, lr=0.5, layers=layers)  # type: ignore[arg-type]
    results, _ = finetune_on_coded(tiny_net, open_coded, config)
    changed = {
        name.rsplit(".", 1)[0] for name, value in tiny_net.state_dict().items() if not torch.equal(value, before[name])
    }
    last_norms = {"layer4.0.bn2", "layer4.0.downsample.2"} if layers == "classifier_bn" else set()
    assert changed == {"fc"} | last_norms
    if last_norms:
        assert not torch.equal(tiny_net.layer4[0].bn2.running_mean, before["layer4.0.bn2.running_mean"])
    assert len(results) == 2
    assert all(parameter.requires_grad for parameter in tiny_net.parameters())
    assert not any(module.training for module in tiny_net.modules())


def test_each_epoch_of_a_fine_tuning_draws_its_own_random_numbers(
    tiny_net: nn.Module, open_coded: OpenCoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, ...]] = []
    monkeypatch.setattr("fixres.training.trainer.seed_step", lambda _, *words: drawn.append(words))
    finetune_on_coded(tiny_net, open_coded, FinetuneConfig(epochs=2), batch_size=12, seed=5)
    assert drawn == [(5, 0, 0), (5, 0, 1), (5, 1, 0), (5, 1, 1)]


def test_bad_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"model.name='resnet5000' is not a timm model; near: .*resnet50"):
        create_model(ModelConfig("resnet5000"), 2)
    with pytest.raises(InputError, match=r"model\.kwargs"):
        create_model(ModelConfig("resnet10t", {"color": "red"}), 2)
    with pytest.raises(InputError, match="device='tpu'"):
        choose_device("tpu")
    with pytest.raises(InputError, match="precision=fp16 needs a GPU"):
        choose_precision("fp16", torch.device("cpu"))
    for name in ("float32", "FP32", "fp61", ""):
        with pytest.raises(InputError, match=f"precision='{name}' is unknown; use auto, fp32, bf16, fp16"):
            choose_precision(name, torch.device("cpu"))

"""`fixres.evaluate` and `fixres.finetune`: plain modules, timm's networks and those of `fixres.load`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import fixres
from fixres.config.jobs import FinetuneJob
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.finetuning.job import finetune_network
from fixres.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fixres.models.factory import Normalize
from fixres.models.pretrained import open_chosen
from fixres.pipelines.spec import InputError, Loader
from tests.coded import coded_image, jpeg, write_coded_folder
from tests.fixres.conftest import TINY

NORMAL = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}


class PlainNet(nn.Module):
    """Two convolutions and a linear classifier; nothing that only timm's networks have."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(),
                                      nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())  # fmt: skip
        self.classifier = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 24 and val/ with 13 images: class a has little blue, class b much."""
    root = tmp_path_factory.mktemp("photos")
    for split, num in (("train", 24), ("val", 13)):
        for i in range(num):
            folder = root / split / "ab"[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:02d}.jpg").write_bytes(jpeg(coded_image(60 + i, 80 - i, 6 * (i % 2))))
    return root


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_net: nn.Module) -> Path:
    info = CheckpointInfo(TINY.name, TINY.kwargs, ("class_00", "class_01"), 32, 40, 0.9, **NORMAL)
    save_checkpoint(tmp_path / "trained.pt", tiny_net, info)
    return tmp_path / "trained.pt"


def evaluate(model: object, data: Path, resolutions: object = None, **arguments: object) -> list[fixres.EvalResult]:
    return fixres.evaluate(model, data, resolutions, **({"num_workers": 0, "precision": "fp32"} | arguments))


def finetune(model: object, data: Path, resolution: object = 48, **arguments: object) -> fixres.FinetuneOutcome:
    given = {"num_workers": 0, "precision": "fp32", "batch_size": 8} | arguments
    return fixres.finetune(model, data, resolution, **given)


def by_hand(model: nn.Module, data: Path, resolution: int, **transform: object) -> tuple[float, float]:
    """top1 and loss over the test split, from the public loader."""
    model.eval()
    with fixres.Loader(data, resolution, 5, train=False, num_workers=0, device="cpu", **transform) as loader:
        with torch.inference_mode():
            parts = [(model(images), labels) for images, labels in loader]
    logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return float((logits.argmax(1) == labels).float().mean()), float(nn.functional.cross_entropy(logits, labels))


def test_a_plain_network_is_tested_as_by_hand(photos: Path) -> None:
    net = PlainNet()
    results = evaluate(net, photos, [48, 32], crop_pct=0.8, **NORMAL)
    assert [result.test_res for result in results] == [48, 32]
    for result in results:
        top1, loss = by_hand(net, photos, result.test_res, crop_pct=0.8, **NORMAL)
        assert (result.top1, result.num_images) == (pytest.approx(top1), 13)
        assert result.loss == pytest.approx(loss, rel=1e-5)
    assert evaluate(net, str(photos / "val"), 32)[0].loss == pytest.approx(by_hand(net, photos, 32)[1], rel=1e-5)


def test_the_transform_of_timms_record_is_used_and_shown(photos: Path, capsys: pytest.CaptureFixture) -> None:
    net = timm.create_model(TINY.name, num_classes=2, **TINY.kwargs)
    net.pretrained_cfg |= {"mean": NORMAL["mean"], "std": NORMAL["std"], "test_input_size": (3, 56, 56)}
    (result,) = evaluate(net, photos)
    assert result.test_res == 56  # and its test_crop_pct instead of crop_pct
    assert result.loss == pytest.approx(
        by_hand(net, photos, 56, crop_pct=0.95, interpolation="bicubic", **NORMAL)[1], rel=1e-5
    )
    shown = capsys.readouterr().err
    assert "ResNet: crop_pct=0.95, interpolation=bicubic, mean=(0.4, 0.5, 0.6)" in shown
    (other,) = evaluate(net, photos, interpolation="bilinear")
    assert other.loss == pytest.approx(by_hand(net, photos, 56, crop_pct=0.95, **NORMAL)[1], rel=1e-5)
    assert other.loss != result.loss


def test_a_loaded_network_is_tested_with_its_own_transform(checkpoint: Path, coded_folder: Path) -> None:
    net = fixres.load(checkpoint, device="cpu")
    (result,) = evaluate(net, coded_folder)
    assert result.test_res == 40
    assert result.loss == pytest.approx(by_hand(net.model, coded_folder, 40, crop_pct=0.9, **NORMAL)[1], rel=1e-5)
    rows = net.predict(sorted(coded_folder.rglob("*.jpg")), top_k=1)
    files = sorted(coded_folder.rglob("*.jpg"))
    right = sum(row[0].name == file.parent.name for row, file in zip(rows, files, strict=True))
    assert result.top1 == pytest.approx(right / len(files))


def test_auto_takes_bf16_without_amx_for_networks_of_fixres_only(
    checkpoint: Path, photos: Path, coded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have operators that autocast breaks: a quantized linear layer takes fp32 only."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    used: list[bool] = []
    forward = Normalize.forward
    monkeypatch.setattr(
        Normalize, "forward", lambda *given: (used.append(torch.is_autocast_enabled("cpu")), forward(*given))[1]
    )
    evaluate(fixres.load(checkpoint, device="cpu"), coded_folder, precision="auto")
    assert set(used) == {True}
    used.clear()
    net = torch.ao.quantization.quantize_dynamic(PlainNet().eval(), {nn.Linear})
    evaluate(net, photos / "val", 48, precision="auto")
    assert set(used) == {False}


def test_modes_and_gradients_stay(photos: Path) -> None:
    net = PlainNet().train()
    net.features[1].eval()
    net.features[0].weight.requires_grad_(False)
    for call in (lambda: evaluate(net, photos, 32), lambda: finetune(net, photos)):
        call()
        assert net.training and net.features[4].training and not net.features[1].training
        frozen = [name for name, parameter in net.named_parameters() if not parameter.requires_grad]
        assert frozen == ["features.0.weight"]


def test_finetuning_trains_the_last_layers_and_tests_before_and_after(photos: Path) -> None:
    net = PlainNet().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    (tested,) = evaluate(net, photos, 48, batch_size=8)
    outcome = finetune(net, photos, 48, epochs=6, lr=3.0, seed=1)
    changed = {name.rpartition(".")[0] for name, value in net.state_dict().items() if not value.equal(before[name])}
    assert changed == {"features.4", "classifier"}
    assert outcome.model is net and outcome.test_res == 48 and len(outcome.finetuning.epochs) == 6
    assert (outcome.before.top1, outcome.before.loss) == (tested.top1, tested.loss)
    (again,) = evaluate(net, photos, 48, batch_size=8)
    assert (outcome.after.top1, outcome.after.loss) == (again.top1, again.loss)
    assert outcome.after.loss < outcome.before.loss and outcome.after.top1 == 1.0


def test_equal_seeds_give_equal_weights(photos: Path) -> None:
    one, same, other = PlainNet(), PlainNet(), PlainNet()
    for net, seed in ((one, 1), (same, 1), (other, 2)):
        finetune(net, photos, lr=1.0, seed=seed)
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_it_is_the_finetuning_of_the_command(
    checkpoint: Path, coded_folder: Path, open_coded: Callable[..., Loader], tmp_path: Path
) -> None:
    settings = {"epochs": 2, "layers": "last_blocks", "augmentation": "test_shift", "adapt": "batchnorm"}
    job = FinetuneJob(model=str(checkpoint), test_res=48, output=tmp_path / "job.pt", device="cpu", precision="fp32",
                      finetune=FinetuneConfig(**settings), optim=OptimConfig(batch_size=8), seed=5)  # fmt: skip
    report = finetune_network(job, open_chosen(job, ("class_00", "class_01")), open_coded)
    net = fixres.load(checkpoint, device="cpu")
    outcome = finetune(net, coded_folder, val=coded_folder, engine="torch", seed=5, **settings)
    wanted, info = load_checkpoint(tmp_path / "job.pt")
    for (name, value), expected in zip(net.model.state_dict().items(), wanted.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name
    assert outcome.after.loss == next(one.loss for one in report.finetunings[0].after if one.test_res == 48)
    assert net.info.finetuned and net.info == replace(info, data=None)


def test_a_loaded_network_gets_the_new_description(checkpoint: Path, coded_folder: Path, tmp_path: Path) -> None:
    net = fixres.load(checkpoint, device="cpu")
    outcome = finetune(net, coded_folder, 56, crop_pct=0.8)
    assert outcome.model is net and outcome.before is None and outcome.after is None  # no test images beside them
    assert (net.info.test_res, net.info.train_res, net.info.crop_pct, net.info.finetuned) == (56, 32, 0.8, True)
    file = next(coded_folder.rglob("*.jpg"))
    assert net.transform(file).shape == (3, 56, 56)
    net.export(tmp_path / "finetuned.safetensors", "safetensors")
    again = fixres.load(tmp_path / "finetuned.safetensors", device="cpu")
    assert again.info == net.info and again.predict(file) == net.predict(file)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_networks_of_timm_are_finetuned(name: str, photos: Path) -> None:
    arguments = {"img_size": 32, "embed_dim": 24, "depth": 2} if name.startswith("vit") else {}
    net = timm.create_model(name, num_classes=2, **arguments)
    outcome = finetune(net, photos, 32, epochs=1)
    assert outcome.finetuning.layers and 0 <= outcome.after.top1 <= 1


def test_test_images_are_found_beside_the_training_images_or_given(photos: Path, tmp_path: Path) -> None:
    assert finetune(PlainNet(), photos / "train", epochs=1).after.num_images == 13
    assert finetune(PlainNet(), photos / "train", val=str(photos / "train"), epochs=1).after.num_images == 24
    (tmp_path / "mine").symlink_to(photos / "train")
    assert finetune(PlainNet(), tmp_path / "mine", epochs=1).after is None


def test_adaptation_alone(photos: Path) -> None:
    net = PlainNet()
    outcome = finetune(net, photos, 48, epochs=0, adapt="batchnorm", adapt_images=24)
    assert outcome.finetuning.adaptation == "statistics of 2 BatchNorms from 24 images at 48 px"
    assert finetune(net, photos, 48, epochs=0, adapt="frechet", train_resolution=32).finetuning.adaptation


@pytest.mark.parametrize(
    ("resolutions", "arguments", "message"),
    [
        ("128", {}, "resolutions='128' must be a whole number, a list of whole numbers or None"),
        (12.5, {}, "resolutions=12.5 must be a whole number"),
        ([32, "48"], {}, r"resolutions=\[32, '48'\] must be"),
        ([], {}, r"resolutions=\[\] names none; give one or more"),
        (None, {}, "the network does not name its test resolution; give resolutions"),
        (4, {}, "resolution=4 is not supported"),
        (32, {"batch_size": 0}, "batch_size=0 must be at least 1"),
        (32, {"crop_pct": 1.5}, r"crop_pct=1.5 must be in \(0, 1\]"),
        (32, {"mean": (124, 116, 104)}, r"mean=\(124, 116, 104\), .* use three shares of 1"),
        (32, {"std": "0.5"}, "std='0.5' must be a list of numbers or None"),
        (32, {"engine": "roc-gpu"}, "engine='roc-gpu' decodes on a GPU, but device='cpu'; use engine roc on CPUs"),
        (32, {"engine": "fast"}, "engine='fast' does not exist"),
        (32, {"precision": "fp8"}, "precision='fp8' is unknown"),
    ],
)
def test_wrong_arguments_of_a_test_are_named(photos: Path, resolutions: object, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(PlainNet(), photos, resolutions, **arguments)


@pytest.mark.parametrize(
    ("resolution", "arguments", "message"),
    [
        ("48", {}, "test_resolution='48' must be a whole number"),
        (4, {}, "resolution=4 is not supported"),
        (48, {"epohcs": 2}, "unknown key epohcs, did you mean epochs"),
        (48, {"epochs": 0}, "^epochs=0 must be above 0"),
        (48, {"epochs": "two"}, "^epochs=two must be a whole number$"),
        (48, {"layers": "head"}, "^layers=head must be 'classifier', 'classifier_bn'"),
        (
            48,
            {"layers": "last_blocks", "num_blocks": 3},
            "^num_blocks=3: PlainNet has 0 blocks; choose fewer, or layers=",
        ),
        (48, {"batch_size": 25}, "25; lower batch_size"),
        (48, {"adapt": "frechet"}, "adapt=frechet needs the training resolution"),
        (48, {"val": "nothing"}, "nothing does not exist"),
        (48, {"seed": 0.5}, "seed=0.5 must be a whole number"),
    ],
)
def test_wrong_arguments_of_a_finetuning_are_named(
    photos: Path, resolution: object, arguments: dict, message: str
) -> None:
    net = PlainNet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        finetune(net, photos, resolution, **arguments)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("net.pt", "model='net.pt' must be Module or Network"),
        (PlainNet(3), "PlainNet has 3 outputs without names, the data has 2 classes"),
        (nn.Conv2d(3, 2, 3), r"Conv2d gives \(1, 2, 30, 30\) for one image, not \(1, number of classes\)"),
        (nn.Linear(3, 2), "Linear does not take 32 px"),
        (nn.Bilinear(3, 3, 2), r"Bilinear does not take 32 px \(.*missing 1 required positional argument"),
        (PlainNet().half(), r"PlainNet has weights of torch.float16; use model.float\(\)"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2)),
         "its logits do not come from a linear layer"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit_are_refused_before_any_work(
    photos: Path, net: nn.Module, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixres.api.learning.sweep", None)
    monkeypatch.setattr("fixres.api.learning.finetune_layers", None)
    with pytest.raises(InputError, match=message) as caught:
        finetune(net, photos, 32)
    assert "\n" not in str(caught.value)
    if "linear layer" not in message:
        with pytest.raises(InputError, match=message):
            evaluate(net, photos, 32)


def test_classes_must_be_those_of_a_loaded_network(
    checkpoint: Path, photos: Path, coded_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = fixres.load(checkpoint, device="cpu")
    message = r"ResNet knows 2 classes \(class_00, class_01\), but not 2 of the data's 2, such as a"
    with pytest.raises(InputError, match=message):
        evaluate(net, photos)
    with pytest.raises(InputError, match=message):
        finetune(net, photos)
    with pytest.raises(
        InputError, match="the test images have the classes a, b, the training images class_00, class_01"
    ):
        finetune(PlainNet(), coded_folder, val=photos)
    torch.save(net.model.state_dict(), tmp_path / "bare.pt")
    bare = fixres.load(tmp_path / "bare.pt", arch=TINY.name, model_kwargs=TINY.kwargs, device="cpu")
    assert evaluate(bare, photos, 32)
    assert "its outputs have no names; they are taken for the data's classes in order, a to b" in caplog.text


def test_the_lines_of_the_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """What a user types, as it is written there; 300 images, because the batches hold 256."""
    monkeypatch.chdir(tmp_path)
    sizes = [(40 + i % 30, 70 - i % 30) for i in range(300)]
    write_coded_folder(tmp_path / "imagenet" / "train", sizes)
    write_coded_folder(tmp_path / "imagenet" / "val", sizes[:8])
    Path("runs/demo/fast").mkdir(parents=True)
    checkpoint.rename("runs/demo/fast/finetuned.pt")
    Path("cat.jpg").write_bytes(jpeg(coded_image(60, 80)))
    model, seen = PlainNet(), []
    fixres.convert("imagenet/val", "val.beton")

    fixres.convert("imagenet/train", "train.beton")
    loader = fixres.Loader("train.beton", resolution=128, batch_size=256)
    for epoch in range(16):
        loader.set_resolution(128 if epoch < 12 else 160)
        for images, labels in loader:
            seen.append((tuple(images.shape), images.dtype, tuple(labels.shape)))
    result = fixres.finetune(model, "train.beton", test_resolution=224)
    tested = fixres.evaluate(model, "val.beton", resolutions=[224, 288])
    net = fixres.load("runs/demo/fast/finetuned.pt")
    found = net.predict("cat.jpg")

    loader.close()
    assert seen == [((256, 3, side, side), torch.float32, (256,)) for side in [128] * 12 + [160] * 4]
    assert result.after.num_images == 8 and [one.test_res for one in tested] == [224, 288]
    assert result.after.loss == tested[0].loss
    assert {one.name for one in found} == {"class_00", "class_01"}

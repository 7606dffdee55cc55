"""The device of a name, on machines with any number of GPUs, and the number format of "auto" on CPUs."""

from __future__ import annotations

import pytest
import torch

from fixres.config.recipe import ModelConfig
from fixres.models.factory import create_model
from fixres.models.network_size import without_values
from fixres.models.precision import choose_device, choose_precision
from fixres.pipelines.spec import InputError


@pytest.fixture(params=[0, 1, 4])
def num_gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


@pytest.mark.parametrize("index", [0, 1, 3, 4, 7])
def test_a_missing_gpu_is_refused(num_gpus: int, index: int) -> None:
    name = f"cuda:{index}"
    if index < num_gpus:
        assert choose_device(name) == torch.device("cuda", index)
        return
    with pytest.raises(InputError, match=f"^device='{name}': ") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value) and ("--device cpu" in str(caught.value)) == (num_gpus == 0)


def test_auto_takes_a_gpu_if_there_is_one(num_gpus: int) -> None:
    assert choose_device("auto").type == ("cuda" if num_gpus else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:-1", "cuda:x", "mps", "meta", "", "cuda:999999999999"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="device="):
        choose_device(name)


@pytest.mark.parametrize(
    "has_amx, has_bf16, model, expected",
    [
        (True, True, None, "bf16"),
        (True, True, "mobilenetv3_small_050", "bf16"),
        (False, True, None, "fp32"),
        (False, True, "resnet10t", "bf16"),
        (False, True, "resnext50_32x4d", "bf16"),  # 32 groups of 4 channels
        (False, True, "vit_tiny_patch16_224", "bf16"),
        (False, True, "mobilenetv3_small_050", "fp32"),
        (False, True, "tf_efficientnet_lite0", "fp32"),
        (False, False, "resnet10t", "fp32"),
    ],
)
def test_auto_takes_bf16_on_cpus_that_train_the_network_faster_with_it(
    has_amx: bool, has_bf16: bool, model: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    net = None if model is None else without_values(lambda: create_model(ModelConfig(model), 1))
    assert choose_precision("auto", torch.device("cpu"), net).name == expected
    assert choose_precision("fp32", torch.device("cpu"), net).name == "fp32"

"""The device of a name, on machines with any number of GPUs."""

from __future__ import annotations

import pytest
import torch

from fixres.models.precision import choose_device
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

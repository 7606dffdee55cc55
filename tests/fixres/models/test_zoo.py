"""The papers' networks: the table's transforms against timm, sizes against the papers."""

from __future__ import annotations

import pytest
import timm
import torch

from fixres.models.zoo import ZOO, ZooModel, zoo_table

# Millions of parameters, from the authors' tables.
_PARAMETERS = {
    "resnet50_b": 25.6,
    "resnext101_32x48d": 829,
    "pnasnet5": 86.1,
    "efficientnet_b0": 5.3,
    "efficientnet_b4_ns": 19,
    "efficientnet_b8": 87.4,
    "efficientnet_l2_ns": 480,
}


@pytest.mark.parametrize("model", ZOO.values(), ids=lambda model: model.name)
def test_the_transform_equals_timms(model: ZooModel) -> None:
    config = timm.get_pretrained_cfg(model.timm_name)
    assert timm.is_model(model.timm_name)
    assert "." not in model.timm_name or timm.is_model_pretrained(model.timm_name)
    assert config.input_size[-1] == model.train_res
    assert config.crop_pct == model.crop_pct
    assert config.interpolation == model.interpolation
    assert (tuple(config.mean), tuple(config.std)) == (model.mean, model.std)


@pytest.mark.parametrize(("name", "millions"), _PARAMETERS.items())
def test_the_sizes_equal_the_papers(name: str, millions: float) -> None:
    model = ZOO[name]
    with torch.device("meta"):
        net = timm.create_model(model.timm_name, num_classes=1000, **model.timm_kwargs)
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_finetuned_networks_have_larger_test_resolutions_and_figures() -> None:
    assert len(ZOO) == 26
    for model in ZOO.values():
        finetuned = (model.finetuned_res, model.finetuned_top1, model.finetuned_top5)
        assert all(finetuned) or not any(finetuned)
        if model.finetuned_res:
            assert model.train_res < model.finetuned_res and 0.7 < model.finetuned_top1 < model.finetuned_top5 < 1
            assert "arXiv" in model.source
    assert ZOO["efficientnet_l2_ns"].finetuned_res == 600 and ZOO["efficientnet_l2_ns"].finetuned_top1 == 0.885
    assert len(zoo_table().splitlines()) == 27

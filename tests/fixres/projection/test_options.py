"""The options of a projection: their defaults, and one line for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixres.pipelines.spec import InputError
from fixres.projection.options import EstimateOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": 0}, "gpus=0 must be at least 1"),
        ({"cores": 0}, "cores=0 must be at least 1"),
        ({"num_images": 0}, "num_images=0 must be at least 1"),
        ({"finetune_epochs": -1}, "finetune_epochs=-1 must not be negative"),
        ({"large": {}}, "large is empty; give resolution:epochs"),
        ({"large": {0: 4}}, "resolution=0 is not supported"),
        ({"small": {128: 4, -1: 2}}, "resolution=-1 is not supported"),
        ({"small": {224: -2}}, "small: -2 epochs at 224 px; use at least 1"),
        ({"test_res": 0}, "resolution=0 is not supported"),
        ({"step_speed": {128: 0.0}}, "step_speed: 0 images/s at 128 px must be a number above 0"),
        ({"step_speed": {128: float("nan")}}, "step_speed: nan images/s"),
        ({"step_speed": {4: 1.0}}, "resolution=4 is not supported"),
        ({"step_speed": {128: 1.0}, "step_record": Path("x.json")}, "step_speed or step_record=x.json, not both"),
    ],
)
def test_mistakes_are_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        EstimateOptions(**values)
    assert "\n" not in str(caught.value)


def test_defaults() -> None:
    assert EstimateOptions(gpus=8).num_cores == 96 and EstimateOptions(gpus=8, cores=5).num_cores == 5
    assert EstimateOptions().resolutions == [128, 160, 224]
    assert EstimateOptions(large={192: 1}, finetune_epochs=0).resolutions == [128, 160, 192]
    assert EstimateOptions().devices(1) == "1 GPU" and EstimateOptions(device="cpu").devices(3) == "3 CPU machines"


def test_the_options_are_known_without_torch() -> None:
    program = "import sys; import fixres.projection.options; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)

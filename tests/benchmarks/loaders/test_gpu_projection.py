"""What a GPU would need is counted from machine code and from what the kernels do for real crops."""

from __future__ import annotations

import shutil
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from benchmarks.docs.render import section
from benchmarks.loaders import gpu_fixtures
from benchmarks.loaders.gpu_projection import counts, machine_code, run
from benchmarks.loaders.gpu_projection.instructions import STEPS, Costs, crop_instructions
from fixres.pipelines.formats.beton_writer import write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record
from tests.pipelines.loaders.loading import write_coded_roc
from tests.pipelines.roc.gpu.host_build import needs_compiler


@pytest.fixture
def nvrtc() -> None:
    pytest.importorskip("cuda.bindings", reason="the CUDA builds of torch install cuda.bindings and NVRTC")
    try:
        machine_code._disassembler()
    except InputError as error:
        pytest.skip(str(error))


@needs_compiler
@pytest.mark.usefixtures("nvrtc")
def test_a_record_is_made_and_shown_as_projected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = write_coded_roc(tmp_path / "x.beton", [(60, 80), (90, 70)] * 2), tmp_path / "gpu_projection.json"
    words = ["--data", path, "--json", target, "--num-crops", 3, "--train-res", 32]
    monkeypatch.setattr(sys, "argv", ["gpu_projection", *map(str, words)])
    run.main()
    content = read_record(target, "gpu_projection")
    costs, (result,) = content["costs"], content["results"]
    assert set(result["instructions"]) == set(STEPS) and min(result["instructions"].values()) > 100
    # An inverse DCT is 16 transforms of 8 numbers, each of 11 products and 32 sums at least, with loads and stores.
    assert 16 * (11 + 32) < costs["transform"] < 4 * 16 * (11 + 32) and 30 < costs["code"] < 100
    assert 4 < costs["columns_tap"] < 40 and 4 < costs["rows_tap"] < 40
    low, high = result["images_per_second"]
    total = sum(result["instructions"].values())
    assert high == pytest.approx(4 * low) and low == pytest.approx(132 * 1.755e9 / 2 / total)
    shown = section(content)
    assert "projected, not run on a GPU" in shown and "| decode_segments |" in shown and "shared memory" in shown


@needs_compiler
def test_codes_of_plain_images_are_counted(tmp_path: Path) -> None:
    """A block of one color has a code for its mean and one for its end."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    stored = [encode(image, RocQuality(num_levels=1)) for image in (np.full_like(noise, 90), noise)]
    samples = [EncodedSample(image, 64, 48, 0, k, (record,)) for k, (image, record) in enumerate(stored)]
    write_beton(path := tmp_path / "x.beton", samples, 2, classes=("a",), extra_fields=("roc",))
    made = gpu_fixtures.fixtures(path, 2, [64])
    plain, noisy = counts.Counter().count(made["stored_64"], made["plans_64"], int(made["scratch_64"]))
    assert plain.codes.shape[1] == 6 and (plain.codes == 2).all() and (plain.long_codes == 0).all()
    assert noisy.codes.mean() > 10 and noisy.words.min() > plain.words.max() > 0


def test_a_warp_runs_as_long_as_its_slowest_thread() -> None:
    only_codes, plan = Costs(**{field.name: float(field.name == "code") for field in fields(Costs)}), np.full(33, 8)
    codes = np.ones((40, 6), np.int32)
    codes[7, 2], codes[33, 5] = 50, 9
    found = crop_instructions(only_codes, plan, counts.Counts(codes, 0 * codes, codes[:, 0]), 32, 1)
    assert found["decoding"] == (5 + 50) + (5 + 9) and sum(found.values()) == found["decoding"]
    assert counts.by_warps(codes).shape == (2, 32, 6)


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(InputError, match=r"nvdisasm is missing.*install triton"):
        machine_code._disassembler()
    with pytest.raises(InputError, match=r"g\+\+ is missing"):
        counts.Counter()
    with pytest.raises(InputError, match="no line of the kernels has `no such line`"):
        machine_code.lines_with("no such line")

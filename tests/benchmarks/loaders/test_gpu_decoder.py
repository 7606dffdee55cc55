"""The check of a GPU: its stored crops and its comparison, with the host build of the kernels in place of a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loaders import gpu_decoder, gpu_fixtures
from fixres.pipelines.roc.gpu import crop_plan
from tests.pipelines.loaders.loading import write_coded_roc
from tests.pipelines.roc.gpu import host_build
from tests.pipelines.roc.gpu.host_launcher import HostLauncher

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixtures")
    path = write_coded_roc(folder / "x.beton", [(60, 80), (90, 70), (33, 40)])
    wanted = path, 5, [24, 40]
    np.savez_compressed(folder / "x.npz", **gpu_fixtures.fixtures(*wanted), **gpu_fixtures.indexed_fixtures(*wanted))
    return folder / "x.npz"


@host_build.needs_compiler
def test_stored_pixels_are_found_again_and_wrong_ones_are_noticed(stored: Path) -> None:
    made = dict(np.load(stored))
    found = gpu_decoder.check_pixels(HostLauncher(), made)
    expected = [(side, 5, kind) for kind in ("roc", "untouched") for side in (24, 40) for _ in range(3)]
    assert [(one["res"], one["num_crops"], one["images"]) for one in found] == expected
    assert all(one["num_different"] == one["num_bad_samples"] == 0 for one in found)
    made["images_40"][2, 3, 4, 1] ^= 1
    made["images_24_indexed"][1, 3, 4, 1] ^= 1
    found = gpu_decoder.check_pixels(HostLauncher(), made)
    assert [one["num_different"] for one in found] == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]


@host_build.needs_compiler
def test_repeated_crops_have_scratch_of_their_own(stored: Path) -> None:
    made = dict(np.load(stored))
    job = gpu_decoder.Job(HostLauncher(), made, 24, 13)
    job.run()
    assert (job.images.numpy() == made["images_24"][np.arange(13) % 5]).all()


def test_the_columns_are_those_of_the_plans() -> None:
    names = ("NUM_SEGMENTS", "ROWS", "COLUMNS", "PLANES", "TAPS")
    assert all(getattr(gpu_decoder, f"_{name}") == getattr(crop_plan, name) for name in names)


def test_it_needs_little_more_than_torch_and_numpy() -> None:
    code = "import sys, torch; old = set(sys.modules); import benchmarks.loaders.gpu_decoder"
    code += "; print(*(set(sys.modules) - old))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names <= {"benchmarks", "fixres", "lazy_loader", "numpy", "torch"}

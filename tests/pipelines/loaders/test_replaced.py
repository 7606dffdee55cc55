"""A file that is replaced after an engine has opened it never gives its pixels under the old labels."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.loaders import open_loader
from fixres.pipelines.loaders.pillow import _Job
from fixres.pipelines.spec import InputError
from tests.pipelines.loaders.loading import collect, config, write_coded_beton, write_coded_roc

SIZES = [(60, 80)] * 5


def replace(path: Path) -> None:
    """By a file with other pictures and other labels."""
    os.replace(write_coded_beton(path.with_suffix(".new"), SIZES[1:]), path)


def test_workers_of_engine_torch_refuse_it(tmp_path: Path) -> None:
    with open_loader("torch", config(write_coded_beton(tmp_path / "x.beton", SIZES), num_workers=0)) as loader:
        job, data = _Job(0, 48, np.arange(2)), pickle.dumps(loader._engine.dataset)
        assert pickle.loads(data)[job].error is None
        replace(tmp_path / "x.beton")
        assert "x.beton was replaced since it was opened" in str(pickle.loads(data)[job].error)


def test_engine_ffcv_refuses_it(tmp_path: Path) -> None:
    pytest.importorskip("ffcv.loader")
    with open_loader("ffcv", config(write_coded_beton(tmp_path / "x.beton", SIZES))) as loader:
        replace(tmp_path / "x.beton")
        with pytest.raises(InputError, match=r"x\.beton was replaced since it was opened; open it again"):
            next(iter(loader))


def test_engine_roc_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    with open_loader("roc", config(write_coded_roc(tmp_path / "x.beton", SIZES), num_workers=0)) as loader:
        before = collect(loader)
        replace(tmp_path / "x.beton")
        assert np.array_equal(collect(loader).images, before.images)

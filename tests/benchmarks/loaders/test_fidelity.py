"""Agreement with the reference, checked on wrong images and labels, and the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jinja2 import UndefinedError

from benchmarks.harness.records import record
from benchmarks.loaders.agreement import Agreement, agreement, compare
from benchmarks.loaders.fidelity import summary
from benchmarks.loaders.fidelity_report import difference_image, worst_part, write_fidelity_report
from benchmarks.loaders.tables import fidelity_table
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.spec import Batch, EvalCrop, LoaderConfig, TrainCrop
from fixres.reporting.html_page import write_page


class Stream:
    """A loader of one batch."""

    def __init__(self, images: np.ndarray, labels: list[int]) -> None:
        self._batch = Batch(torch.from_numpy(images), torch.tensor(labels), torch.arange(len(labels)))

    def set_epoch(self, epoch: int) -> None: ...

    def __iter__(self) -> Iterator[Batch]:
        return iter([self._batch])


def both_crops(engine: str, path: Path, side: int, min_zoom: float = 0.8) -> list[Agreement]:
    """Training crops and center crops of all images."""
    settings = {"num_workers": 0, "min_zoom": min_zoom}
    found = [agreement(engine, LoaderConfig(path, crop, side, 50, **settings)) for crop in (TrainCrop(), EvalCrop())]
    return [one for one in found if one is not None]


def test_wrong_pixels_and_labels_are_found() -> None:
    right = np.full((4, 8, 8, 3), 100, np.uint8)
    wrong = right.copy()
    wrong[2, :4] = 110
    found = compare("x", "center", Stream(wrong, [0, 1, 2, 3]), Stream(right, [0, 1, 2, 0])).as_json()
    assert found["label_agreement"] == 0.75 and found["num_crops"] == 4
    assert found["worst_mean_difference"] == pytest.approx(5) and found["mean_difference"] == pytest.approx(1.25)
    assert found["worst_psnr"] == pytest.approx(10 * np.log10(255**2 / 50))
    one = compare("x", "center", Stream(wrong, [0] * 4), Stream(right, [0] * 4))
    assert np.array_equal(one.worst[0], wrong[2]) and np.array_equal(one.reference[0], right[2])


def test_the_reference_agrees_with_itself(coded_folder: Path) -> None:
    found = both_crops("torch", coded_folder, 32)
    assert [one.crops for one in found] == ["training", "center"]
    assert all(one.mean.max() == 0 and one.labels.all() and len(one.mean) == 24 for one in found)


def test_engine_roc_agrees_within_gray_levels(coded_folder: Path, tmp_path: Path) -> None:
    convert(coded_folder, tmp_path / "c.beton", ConversionConfig("roc", num_workers=0, progress=False))
    training, center = both_crops("roc", tmp_path / "c.beton", 48, float("inf"))
    assert training.labels.all() and center.labels.all()
    assert 0 < training.mean.mean() < 3 and center.mean.mean() < 3


def test_the_part_that_differs_most_is_found() -> None:
    one = np.zeros((100, 120, 3), np.uint8)
    other = one.copy()
    other[70:80, 90:100] = 200
    rows, columns = worst_part(one, other, 20)
    assert rows.start <= 70 and rows.stop >= 80 and columns.start <= 90 and columns.stop >= 100
    assert rows.stop - rows.start == columns.stop - columns.start == 20
    assert worst_part(one[:8, :8], other[:8, :8], 20) == (slice(0, 8), slice(0, 8))
    shown = difference_image(other, one)
    assert (
        (shown[0, 0] == 128).all()
        and (shown[75, 95] == 255).all()
        and (difference_image(one, other)[75, 95] == 0).all()
    )


def test_the_page_needs_no_other_file(coded_folder: Path, tmp_path: Path) -> None:
    found = both_crops("torch", coded_folder, 32)
    engines = [one.as_json() for one in found]
    content = record("fidelity", {"res": [32]}, {"cpu": "x&y"}, "A <b>note</b>.", False, figures=[], engines=engines)
    chosen = replace(found[0], psnr=np.array([30.0, 31.0]), coarse=np.array([True, False]))
    write_fidelity_report(content, found, [chosen], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "A &lt;b&gt;note&lt;/b&gt;" in text and "x&amp;y" in text
    pictures = re.findall(r'<img src="([^"]{30})', text)
    assert len(pictures) == 2 * 3 * 5 + 2 and all(one.startswith("data:image/png;base64,") for one in pictures)
    assert "http" not in re.sub(r'src="[^"]*"', "", text).replace("http-equiv", "")


def test_a_missing_value_of_a_template_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError):
        write_page(tmp_path / "x.html", "benchmarks.loaders", "fidelity.html.j2", content=SimpleNamespace(note=""))
    assert list(tmp_path.iterdir()) == []


def test_without_crops_from_coarser_levels_the_table_has_dashes() -> None:
    ones, none = np.ones(3), np.empty((0, 64, 64, 3))
    crops = Agreement("roc", "training", 64, ones, ones, 40 * ones, ones > 0, ones < 0, none, none)
    content = {"figures": [summary(crops, crops)]}
    assert fidelity_table(content).endswith("| 64 | 3 | 1.00 | 1.00 | 0 | - | - | - |")

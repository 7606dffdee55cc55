"""Line charts: points lie where their values are, on round ticks; figures of artificial records."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.docs.accuracy_figures import published_figure, savings_figure
from benchmarks.docs.line_chart import Line, line_chart
from tests.benchmarks.published.test_published import resolution
from tests.benchmarks.savings.test_budgets import MADE


def dots(svg: str) -> list[tuple[float, float]]:
    found = ElementTree.fromstring(svg).findall(".//{*}circle")
    return [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in found]


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).findall(".//{*}text")]


def test_places_are_proportional_to_the_values() -> None:
    svg = line_chart("T", "x", "y", [Line("a", [(0, 70, 69, 71), (5, 75, 75, 75), (10, 80, 80, 80)], 0)], ["a note"])
    (x0, y0), (x1, y1), (x2, y2) = dots(svg)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and y0 > y2
    assert {"68", "70", "80", "T", "x", "y", "a", "a note"} <= {*texts(svg)}


def test_a_logarithmic_axis() -> None:
    svg = line_chart("T", "x", "y", [Line("a", [(value, 1.0, 1.0, 1.0) for value in (1, 10, 100)], 0)], [], log_x=True)
    (x0, _), (x1, _), (x2, _) = dots(svg)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and {"1", "2", "5", "10", "100"} <= {*texts(svg)}


def test_figures_of_records() -> None:
    network = {"network": "tf_net", "train_res": 64, "resolutions": [
        resolution(64, [0.7, 0.72], [0.71, 0.73]), resolution(96, [0.6, 0.62])]}  # fmt: skip
    svg = published_figure({"networks": [network], "num_folds": 2, "num_tested": 9})
    assert len(dots(svg)) == 2 + 1 + 1 and "net, 64 px" in texts(svg)  # two sizes, one fine-tuned, its legend
    svg = savings_figure(MADE)
    assert {"large, tested best", "small + FixRes"} <= {*texts(svg)} and len(dots(svg)) == 4

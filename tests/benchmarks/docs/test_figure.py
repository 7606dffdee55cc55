"""README's figure and its short tables."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from benchmarks.docs.figure import throughput_figure
from benchmarks.docs.render import render
from benchmarks.harness.records import RESULTS
from fixres.reporting.records import read_record


@pytest.fixture(scope="module")
def svg() -> str:
    return throughput_figure(read_record(RESULTS / "throughput.json"))


def test_bars_are_as_long_as_the_speeds(svg: str) -> None:
    bars = ElementTree.fromstring(svg).findall(".//{*}rect[@rx='3']")
    widths = [float(bar.attrib["width"]) for bar in bars]
    speeds = [float(value.replace(",", "")) for value in re.findall(r'"value">([\d,]+)<', svg)]
    assert len(widths) == len(speeds) == 5
    assert [width / widths[0] for width in widths] == pytest.approx([speed / speeds[0] for speed in speeds], abs=2e-3)


def test_the_crop_lies_within_the_blocks_that_are_decoded(svg: str) -> None:
    crop = ElementTree.fromstring(svg).find(".//{*}rect[@class='crop']").attrib
    x, y, width, height = map(int, re.search(r"M(\d+) (\d+) h(\d+) v(\d+)", svg).groups())
    assert x % 12 == y % 12 == width % 12 == height % 12 == 0
    assert 0 <= float(crop["x"]) - x < 12 and 0 <= x + width - float(crop["x"]) - float(crop["width"]) < 12
    assert 0 <= float(crop["y"]) - y < 12 and 0 <= y + height - float(crop["y"]) - float(crop["height"]) < 12


def test_the_figure_names_its_conditions_and_adapts_to_dark_pages(svg: str) -> None:
    assert "2 cores of AMD EPYC, no GPU" in svg and "24 rounds" in svg and "commit ced8a90" in svg
    assert "prefers-color-scheme: dark" in svg


def test_short_forms_have_the_numbers_and_conditions_of_their_records() -> None:
    text = render("<!-- throughput_summary:begin --><!-- throughput_summary:end -->")
    assert "**10.7 times as fast as FFCV, 10.7 times as fast as DALI, 9.5 times" in text and "ced8a90" in text
    rows = re.findall(r"(?m)^\| .*", render("<!-- savings_summary:begin --><!-- savings_summary:end -->"))
    assert rows[1].startswith("| as usual | 128 px | 128 px | 73.8 ± 0.7 | 94 ± 3 | 1 |")
    assert [row.split("|")[-2].strip() for row in rows[2:]] == ["**3.0**", "**2.4**"]

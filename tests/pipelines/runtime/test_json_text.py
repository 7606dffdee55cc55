"""Whatever is wrong with a JSON document, one kind of error says so, in every reader."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.evaluation.real_labels import read_real
from fixres.experiment.report import read_report
from fixres.pipelines.conversion.journal import Journal
from fixres.pipelines.datasets.conversion_cache import _read_json
from fixres.pipelines.formats.webdataset_labels import parse_json
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.formats.webdataset_writer import write_shards
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record
from tests.pipelines.formats.beton_files import CLASSES, samples

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = ["[" * 100_000, '{"a":' * 100_000, "1e400", '{"classes": 1e400}', "[-Infinity]", "[NaN]", "[", '"\udcff"',
           "9" * 5000, ""]  # fmt: skip


def test_sound_documents() -> None:
    content = {"a": [1, -2.5, 1e300, None, True, "\x1b"], "b": {"c": 10**30}}
    assert decode_json(json.dumps(content)) == decode_json(json.dumps(content).encode()) == content
    assert decode_json("[Infinity, 1e400]", finite=False) == [float("inf")] * 2


@pytest.mark.parametrize("text", HOSTILE)
def test_one_kind_of_error(text: str) -> None:
    if "\udcff" in text:
        text = text.encode("utf-8", "surrogateescape")
    with pytest.raises(ValueError) as caught:
        decode_json(text)
    assert len(str(caught.value)) < 200


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "real.json": ("not a JSON list", lambda path: read_real(path, 10)),
    "record.json": ("is not a record", read_record),
    "report.json": ("is damaged", lambda path: read_report(path.parent)),
    "x.json": ("member is damaged", lambda path: parse_json(path.read_bytes(), "x")),
    ".journal": ("not the journal", lambda path: Journal(path, {"a": 1}, restart=False)),
    "classes.json": ("is not of the form", lambda path: TarSource(path.parent)),
}


@pytest.mark.parametrize("name", READERS)
def test_readers_end_in_one_line(name: str, tmp_path: Path) -> None:
    message, read = READERS[name]
    if name == "classes.json":
        write_shards(tmp_path / "x", samples(), CLASSES)
        tmp_path /= "x"
    for text in HOSTILE[:2] + ['{"classes": ["a", "b", "c"], "num_samples": 1e400}'] * (name == "classes.json"):
        (tmp_path / name).write_text(text + "\n")
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_a_damaged_record_of_a_conversion_is_ignored(tmp_path: Path) -> None:
    for text in HOSTILE:
        (tmp_path / "x").write_text(text, errors="surrogateescape")
        assert _read_json(tmp_path / "x") is None


def test_no_other_reader() -> None:
    """Of what our own process made (`json.loads(json.dumps(...))`) nothing is to be expected."""
    for file in [*ROOT.glob("pipelines/**/*.py"), *ROOT.glob("fixres/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads"):
                assert file.name == "json_text.py" or ast.unparse(node.args[0]).startswith("json.dumps"), file

"""A `datasets.Dataset` as a source; where the package is missing, an object with the methods that are used."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import fixres
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.sources.hugging_face import HuggingFaceSource
from fixres.pipelines.spec import BadSampleError, InputError

HAS_PACKAGE = importlib.util.find_spec("datasets") is not None


class Image:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    names = ("cat", "dog")


class Table:
    """The part of `datasets.Dataset` that is used, over rows in memory."""

    def __init__(self, features: dict[str, Any], columns: dict[str, Sequence], format: str | None = None) -> None:
        self.features, self._columns, self._format, self._fingerprint = features, columns, format, "abc"

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key: int | slice) -> dict[str, Any]:
        assert self._format is None, "the user's format was not removed"
        assert not any(isinstance(feature, Image) and feature.decode for feature in self.features.values())
        return {name: column[key] for name, column in self._columns.items()}

    def with_format(self, format: str | None) -> Table:
        return Table(self.features, self._columns, format)

    def select_columns(self, names: list[str]) -> Table:
        kept = {name: self.features[name] for name in names}, {name: self._columns[name] for name in names}
        return Table(*kept, self._format)

    def cast_column(self, name: str, feature: Any) -> Table:
        return Table(self.features | {name: feature}, self._columns, self._format)


def encoded(code: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (60 + code, 50), (40 * code, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(
    params=["object", pytest.param("package", marks=pytest.mark.skipif(not HAS_PACKAGE, reason="datasets"))]
)
def dataset(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Five images, the second one as a path only; column names that are not the usual ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "1.jpg").write_bytes(encoded(1))
    rows = [{"bytes": encoded(k), "path": None} for k in range(5)]
    rows[1] = {"bytes": None, "path": str(tmp_path / "1.jpg")}
    columns = {"photo": rows, "animal": [0, 1, 1, 0, 1], "other": list("abcde")}
    if request.param == "object":
        return Table({"photo": Image(), "animal": ClassLabel(), "other": str}, columns, "torch")
    from datasets import ClassLabel as Label
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    features = {"photo": Picture(decode=False), "animal": Label(names=list(ClassLabel.names)), "other": Value("string")}
    made = Dataset.from_dict(columns, features=Features(features))
    return made.cast_column("photo", Picture()).with_format("torch")


def test_rows_stay_encoded(dataset: Any) -> None:
    source = HuggingFaceSource(dataset)
    assert [source.read(k) for k in range(5)] == [encoded(k) for k in range(5)]
    assert (source.classes, source.labels.tolist(), len(source)) == (("cat", "dog"), [0, 1, 1, 0, 1], 5)
    assert source.name(3).startswith("Dataset ") and source.name(3).endswith(": row 3") and not source.unnamed


def test_it_is_converted_and_read_without_conversion(dataset: Any, tmp_path: Path) -> None:
    crops = fixres.CropDataset(dataset, 32, train=False, output_type="numpy")
    assert crops.targets == [0, 1, 1, 0, 1] and crops.classes == ["cat", "dog"]
    with fixres.Loader({"train": dataset}, 32, 2, num_workers=0, device="cpu", drop_last=False) as loader:
        assert sorted(label for _, labels in loader for label in labels.tolist()) == [0, 0, 1, 1, 1]
        assert len(loader.dataset) == 5
        if isinstance(dataset, Table):
            with pytest.raises(InputError, match="choose engine torch"):
                fixres.Loader(dataset, 32, 2, engine="roc", device="cpu")
    fixres.convert(dataset, tmp_path / "x.beton", num_workers=0, progress=False)
    stored = fixres.CropDataset(tmp_path / "x.beton", 32, train=False, output_type="numpy")
    assert stored.targets == crops.targets and stored.classes == crops.classes
    assert all(np.abs(stored[k][0].astype(int) - crops[k][0]).mean() < 3 for k in range(5))


def test_mistakes_name_the_column_or_row(dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column picture, only photo, animal, other; rename one: dataset\.rename"):
        HuggingFaceSource(dataset, "picture")
    with pytest.raises(InputError, match="column other of the Dataset must hold class numbers"):
        HuggingFaceSource(dataset, label_column="other")
    with pytest.raises(InputError, match="the DatasetDict has train but no validation"):
        fixres.CropDataset({"train": dataset}, 32, train=False)
    with pytest.raises(InputError, match="path=3 must be a path, a"):
        fixres.CropDataset(3, 32)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(BadSampleError, match=r"row 1: .*1\.jpg cannot be read"):
        HuggingFaceSource(dataset).read(1)


def test_damaged_rows_and_labels() -> None:
    rows = [{"bytes": b"", "path": None}, {"bytes": b"no image", "path": None}]
    source = HuggingFaceSource(Table({"image": Image(), "label": int}, {"image": rows, "label": [0, 1]}))
    assert source.classes == ("0", "1") and source.unnamed
    with pytest.raises(BadSampleError, match="row 0: holds no image"):
        source.read(0)
    with pytest.raises(BadSampleError, match="row 1"):
        decode_rgb(source.read(1), source.name(1), 1)
    for label in (-1, 2**40):
        with pytest.raises(InputError, match=f"row 1 of the Dataset has the label {label}"):
            HuggingFaceSource(Table({"image": Image(), "label": int}, {"image": rows, "label": [0, label]}))

"""train.beton and val.beton as a run's data: they are read as they are and must have the same classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.datasets.conversion_cache import convert_for_engine
from fixres.pipelines.datasets.prepared import PreparedData
from fixres.pipelines.datasets.resolve import resolve_data
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import DataConfig, EvalCrop, InputError
from tests.coded import coded_image, jpeg


def photos(root: Path, classes: str, num: int = 2) -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(num):
            (root / name / f"{i}.jpg").write_bytes(jpeg(coded_image(40 + i, 48 + label, ord(name))))
    return root


def converted(root: Path, train: str, val: str, format: str = "ffcv", **options: object) -> Path:
    """DIR with train.beton and val.beton; class k's images have the code of its letter."""
    for split, classes in (("train", train), ("val", val)):
        source = open_source(photos(root / "unpacked" / split, classes), **(options if split == "val" else {}))
        convert(source, root / "data" / f"{split}.beton", ConversionConfig(format, num_workers=0, progress=False))
    return root / "data"


@pytest.mark.parametrize(
    ("engine", "format"), [("torch", "ffcv"), ("torch", "roc"), ("roc", "roc"), ("roc-dali", "roc"), ("ffcv", "ffcv")]
)
def test_engines_read_the_files_as_they_are(engine: str, format: str, tmp_path: Path) -> None:
    for name, package in (("ffcv", "ffcv"), ("roc-dali", "nvidia.dali")):
        if engine == name:
            pytest.importorskip(package)
    root = converted(tmp_path, "abc", "abc", format)
    data = PreparedData(
        DataConfig(str(root), engine, tmp_path / "work", num_workers=0 if engine == "torch" else 1), "cpu"
    ).prepare()
    assert data.describe()["classes"] == ["a", "b", "c"]
    with data("val", crop=EvalCrop(), resolution=32, batch_size=6) as loader:
        assert loader.classes == ("a", "b", "c")
        (batch,) = list(loader)
    blue = batch.images[:, 16, 16, 2].float()
    wanted = [16 + 32 * (ord("abc"[label]) % 8) for label in batch.labels.tolist()]
    assert sorted(batch.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert max(abs(float(level) - code) for level, code in zip(blue, wanted, strict=True)) < 12
    assert not (tmp_path / "work").exists()


def test_a_shifted_label_is_refused_and_classes_from_corrects_it(tmp_path: Path) -> None:
    root = converted(tmp_path / "bad", "abc", "ac")
    with pytest.raises(
        InputError, match=r"label 1 is b in .*train\.beton but c in .*\(3 and 2 classes\).*--classes-from"
    ):
        resolve_data(str(root), tmp_path / "work")
    root = converted(tmp_path / "good", "abc", "ac", classes_from=root / "train.beton")
    assert resolve_data(str(root), tmp_path / "work") == (root / "train.beton", root / "val.beton", ("a", "b", "c"))
    assert open_source(root / "val.beton").labels.tolist() == [0, 0, 2, 2]


def test_a_missing_file_or_additional_folders_are_reported(tmp_path: Path) -> None:
    root = converted(tmp_path, "ab", "ab")
    (root / "val").mkdir()
    with pytest.raises(InputError, match=r"holds train\.beton and val\.beton, but also val/"):
        resolve_data(str(root), tmp_path / "work")
    (root / "val").rmdir()
    (root / "train.beton").unlink()
    with pytest.raises(InputError, match=r"has val\.beton but no train\.beton"):
        resolve_data(str(root), tmp_path / "work")


def test_an_engine_that_cannot_read_them_is_reported(tmp_path: Path) -> None:
    root = converted(tmp_path, "ab", "ab")
    with pytest.raises(InputError, match=r"engine='dali' cannot read .*train\.beton; choose one of roc"):
        convert_for_engine("dali", root / "train.beton", DataConfig(work_dir=tmp_path / "work", num_workers=0))

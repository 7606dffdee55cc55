"""One order of classes everywhere, by name, and lists joined by name: class folders whose names are numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from fixres.cli.main import call as call_command
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.merging import merge
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.datasets.eval_data import SingleSplit
from fixres.pipelines.datasets.prepared import PreparedData
from fixres.pipelines.formats.parts import Part
from fixres.pipelines.sources import open_source, open_stored
from fixres.pipelines.sources.relabel import RelabeledSource
from fixres.pipelines.spec import DataConfig, EvalCrop, InputError
from tests.coded import coded_image, jpeg
from tests.pipelines.sources import miniatures as mini
from tests.pipelines.sources.miniatures import Photos, expected

TRAIN, VAL = (0, 1, 2, 3, 10), (0, 1, 2, 3)


def write_numbers(root: Path, numbers: tuple[int, ...] | range, num_images: int = 2) -> Path:
    """Folders named by numbers; the images of each have its number as their code."""
    for number in numbers:
        (root / str(number)).mkdir(parents=True)
        for k in range(num_images):
            (root / str(number) / f"{k}.jpg").write_bytes(jpeg(coded_image(40 + k, 48, number)))
    return root


@pytest.mark.parametrize("form", ["folder", "beton", "shards", "list"])
@pytest.mark.parametrize("format", ["ffcv", "webdataset"])
def test_folders_named_by_numbers_keep_their_class_with_a_class_list(form: str, format: str, tmp_path: Path) -> None:
    """train has 0, 1, 2, 3, 10, in text order 0, 1, 10, 2, 3; val has no 10."""
    train, val = write_numbers(tmp_path / "d" / "train", TRAIN), write_numbers(tmp_path / "d" / "val", VAL)
    place = {"folder": train, "beton": tmp_path / "t.beton", "shards": tmp_path / "t", "list": tmp_path / "l.txt"}[form]
    if form in ("beton", "shards"):
        call_command("convert", [str(train), str(place), "--format", "ffcv" if form == "beton" else "webdataset"])
    elif form == "list":
        place.write_text("0\n1\n10\n2\n3\n")
    done = tmp_path / ("v.beton" if format == "ffcv" else "v")
    call_command("convert", [str(val), str(done), "--format", format, "--classes-from", str(place)])
    for source in (open_source(val, classes_from=place), open_source(done)):
        assert source.classes == ("0", "1", "10", "2", "3")
        assert sorted(source.labels.tolist()) == [0, 0, 1, 1, 3, 3, 4, 4]
    source = open_source(val, classes_from=place)
    assert all(source.classes[source.labels[i]] == Path(source.name(i)).parent.name for i in range(len(source)))


def test_folders_named_by_numbers_have_one_order_everywhere(tmp_path: Path) -> None:
    """Converter, engines, `--data`, `--images` and the split of a folder: the order of torchvision's ImageFolder."""
    root = write_numbers(tmp_path / "12", range(12))
    wanted = tuple(ImageFolder(str(root)).classes)
    assert wanted[2] == "10"
    config = DataConfig(path=str(root), engine="torch", work_dir=tmp_path / "work", num_workers=0)
    single = SingleSplit(root, config, "cpu")
    loader = single("val", crop=EvalCrop(), resolution=32, batch_size=8)
    loader.close()
    convert(root, tmp_path / "x.beton", ConversionConfig("ffcv", num_workers=0, progress=False))
    for opened in (open_source(root), open_stored(root), open_source(tmp_path / "x.beton"), single, loader):
        assert opened.classes == wanted
    assert PreparedData(config, "cpu").classes == wanted
    assert single.labels("val").tolist() == ImageFolder(str(root)).targets


def test_a_thousand_numbers_are_imagenets_everywhere(train: Photos, tmp_path: Path) -> None:
    root = mini.write_imagenet_v2(tmp_path / "v2", train)
    config = DataConfig(engine="torch", work_dir=tmp_path / "work", num_workers=0)
    single = SingleSplit(root, config, "cpu")
    for opened in (open_source(root), open_stored(root)):
        assert opened.classes == single.classes and opened.labels.tolist() == single.labels("val").tolist()
    assert [name for name, _ in expected(train)] == [
        single.classes[label] for label in single.labels("val").tolist() if single.classes[label] in mini.NUMBERS
    ]


def test_numbers_without_names_keep_their_number_through_a_conversion(train: Photos, tmp_path: Path) -> None:
    """Such numbers get the names of a list by position, also after conversion and merge; names of folders do not."""
    shards, names = mini.write_numbered(tmp_path / "x", train), tuple(f"class {k}" for k in range(12))
    settings = {"num_workers": 0, "progress": False}
    convert(shards, tmp_path / "x.beton", ConversionConfig("ffcv", **settings))
    convert(tmp_path / "x.beton", tmp_path / "again", ConversionConfig("webdataset", **settings))
    for number in range(2):
        convert(shards, tmp_path / "y.beton", ConversionConfig("ffcv", part=Part(number, 2), **settings))
    merge(sorted(tmp_path.glob("y-*.beton")), tmp_path / "y.beton", progress=False)
    for path in (shards, tmp_path / "x.beton", tmp_path / "again", tmp_path / "y.beton"):
        source = open_source(path)
        relabeled = RelabeledSource(source, names, path, "list")
        assert source.unnamed and relabeled.labels.tolist() == source.labels.tolist()
        with pytest.raises(InputError, match="class number 2 is called 10; rename the classes of the list"):
            RelabeledSource(source, ("0", "1", "10", *map(str, range(2, 10)), "11"), path, "list")
    folder = write_numbers(tmp_path / "folder", range(3))
    with pytest.raises(InputError, match=r"class 0 of .*folder is not among the 12 classes of list"):
        RelabeledSource(open_source(folder), names, folder, "list")

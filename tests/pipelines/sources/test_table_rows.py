"""Crops of a `datasets.Dataset` by an index: the pixels of a folder, and what two tables may and may not share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import fixres
from fixres.pipelines.crop_index import checkpoints
from fixres.pipelines.crop_index.index import CropIndex
from fixres.pipelines.sources.hugging_face import HuggingFaceSource
from fixres.pipelines.spec import InputError
from tests.pipelines.roc.conftest import photo

datasets = pytest.importorskip("datasets")
SIDE, NUM = 32, 8


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "roc-fixres" / "indexes"


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """JPEG files, the last one progressive."""
    return [encoded(photo(90 + 20 * k, 140), progressive=k == NUM - 1) for k in range(NUM)]


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def dataset(rows: list[dict[str, Any]]) -> Any:
    features = {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["a", "b"])}
    columns = {"image": rows, "label": [k % 2 for k in range(len(rows))]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def embedded(images: list[bytes]) -> Any:
    return dataset([{"bytes": data, "path": f"{k}.jpg"} for k, data in enumerate(images)])


def in_files(images: list[bytes], folder: Path) -> Any:
    paths = [folder / "ab"[k % 2] / f"{k}.jpg" for k in range(len(images))]
    for path, data in zip(paths, images, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return dataset([{"bytes": None, "path": str(path)} for path in paths])


def epoch(data: Any, **options: Any) -> list[torch.Tensor]:
    how = {"device": "cpu", "normalize": False, "shuffle": False, "drop_last": False, "num_workers": 2}
    with fixres.Loader(data, SIDE, 3, **how | options) as loader:
        assert type(loader._loader).__name__ == "IndexedLoader"
        return [images for images, _ in loader]


def assert_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_places_are_rows_of_the_table_or_files(images: list[bytes], tmp_path: Path) -> None:
    rows = embedded(images)
    shown = HuggingFaceSource(rows.select([5, 0, 5])).places()
    assert (shown.item.tolist(), shown.file_of.tolist(), len(shown.paths)) == ([5, 0, 5], [0, 0, 0], 1)
    assert HuggingFaceSource(rows.shuffle(seed=0)).places().table == shown.table
    assert HuggingFaceSource(embedded([b"", *images[1:]])).places().table != shown.table
    mixed = datasets.concatenate_datasets([in_files(images, tmp_path), rows]).select([3, 10, 1, 3])
    found = HuggingFaceSource(mixed).places()
    assert found.paths[1:] == [str(tmp_path / "b" / f"{k}.jpg") for k in (1, 3)]
    assert (found.file_of.tolist(), found.item.tolist()) == ([2, 0, 1, 2], [0, 10, 0, 0])


def test_crops_are_those_of_a_folder_and_scanned_once(
    images: list[bytes], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [*range(0, NUM, 2), *range(1, NUM, 2)]  # of a folder
    by_path = in_files(images, tmp_path / "photos").select(order)
    wanted = epoch(tmp_path / "photos")
    for data in (by_path, embedded(images).select(order)):
        assert_equal(epoch(data), wanted)
    by_row = embedded(images).filter(lambda label: label == 1, input_columns="label", load_from_cache_file=False)
    monkeypatch.setattr(checkpoints, "scan_batch", lambda *_: pytest.fail("scanned again"))
    for data in (by_path, embedded(images).select(order)):
        assert_equal(epoch(data), wanted)
        crops = fixres.CropDataset(data, SIDE, seed=0, hflip=0.5)
        workers = DataLoader(crops, 3, num_workers=2, multiprocessing_context="fork")
        assert_equal([found for found, _ in workers], wanted)
        ranks = [torch.cat(epoch(data, rank=rank, world_size=2)) for rank in range(2)]
        assert sorted(map(str, torch.cat(ranks))) == sorted(map(str, torch.cat(wanted)))
    assert CropIndex(HuggingFaceSource(by_row)).num_known == NUM // 2  # another selection of the same table
    assert len(list(cache.iterdir())) == 2


def test_images_of_equal_length_in_other_tables_are_not_confused(cache: Path) -> None:
    pairs = [[encoded(pixels) for pixels in (photo(200 + k, 240), 255 - photo(200 + k, 240))] for k in range(3)]
    sizes = [max(map(len, pair)) for pair in pairs]
    one, two = (
        embedded([pair[k].ljust(size, b"\0") for pair, size in zip(pairs, sizes, strict=True)]) for k in range(2)
    )
    expected = epoch(two)
    assert (epoch(one)[0].int() - expected[0].int()).abs().float().mean() > 20
    assert_equal(epoch(two), expected)
    assert fixres.index(one, coarse=True, overwrite=True, progress=False).num_levels == 3
    with fixres.Loader(two, SIDE, 3, device="cpu", normalize=False, shuffle=False, scale=(0.9, 1.0)) as loader:
        first, second = ([images for images, _ in loader] for _ in range(2))
    next(cache.glob("*-coarse")).unlink()
    with fixres.Loader(two, SIDE, 3, device="cpu", normalize=False, shuffle=False, scale=(0.9, 1.0)) as loader:
        assert_equal([images for images, _ in loader], first)
        assert_equal([images for images, _ in loader], second)
    assert len(list(cache.iterdir())) == 1


def test_coarse_levels_serve_rows_that_were_compared() -> None:
    images = [encoded(photo(300 + k, 260)) for k in range(2)]
    done = fixres.index(embedded(images), coarse=True, progress=False)
    assert (done.num_indexed, done.num_levels) == (2, 2)
    bytes_read = []
    with fixres.Loader(embedded(images), SIDE, 2, device="cpu", scale=(0.9, 1.0), num_workers=1) as loader:
        for _ in range(2):
            list(loader)
            bytes_read.append(loader.counters.bytes_read - sum(bytes_read))
    assert bytes_read[1] < 0.5 * bytes_read[0]


def test_a_replaced_file_is_noticed(images: list[bytes], tmp_path: Path) -> None:
    data = in_files(images, tmp_path)
    before = epoch(data)
    (tmp_path / "a" / "0.jpg").write_bytes(encoded(255 - photo(90, 140)).ljust(len(images[0]), b"\0"))
    difference = (epoch(data)[0].int() - before[0].int()).abs().float().mean((1, 2, 3))
    assert (difference > 20).tolist() == [True, False, False]


def test_mistakes_name_the_row_and_the_call(images: list[bytes], tmp_path: Path, cache: Path) -> None:
    data = in_files(images, tmp_path)
    (tmp_path / "b" / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"Dataset \w+: row 1: .*1\.jpg cannot be read"):
        epoch(data)
    assert len(fixres.index(data, progress=False).bad_samples) == 1
    with pytest.raises(InputError, match="the DatasetDict holds train, test; give one of its data sets"):
        fixres.index(datasets.DatasetDict(train=data, test=data))
    index = next(cache.glob("*.fixres-index"))
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"make it again: fixres\.index\(dataset, overwrite=True\)"):
        epoch(data)
    assert fixres.index(data, overwrite=True, progress=False).num_indexed == NUM - 2

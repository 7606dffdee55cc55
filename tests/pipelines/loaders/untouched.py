"""Images as they are: class folders, and the same images in shards, parquet and FFCV's format."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as pq
from PIL import Image

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.sources import open_folder
from tests.pipelines.roc.conftest import photo

NUM = 14  # images of `write_photos`


def write_photos(folder: Path) -> Path:
    """Class folders of photographs of all samplings; one is progressive, one is a PNG file."""
    for number in range(NUM):
        path = folder / f"class{number % 2}" / f"{number:02d}.{'png' if number == 4 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        sampling = ("4:4:4", "4:2:2", "4:2:0")[number % 3]
        options = {} if number == 4 else {"quality": 90, "subsampling": sampling, "progressive": number == 5}
        Image.fromarray(photo(90 + number, 140)).save(path, **options)
    return folder


def sources_of(photos: Path, folder: Path) -> dict[str, Path]:
    """The images of `write_photos` in the same order, in a new place of `folder`, by kind."""
    source = open_folder(photos)
    images, labels = [source.read(k) for k in range(NUM)], source.labels.tolist()
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "0.tar", "w") as tar:
        for number in range(NUM):
            for ending, data in (("cls", b"%d" % labels[number]), ("jpg", images[number])):
                member = tarfile.TarInfo(f"{number:02d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    pq.write_table(arrow.table({"image": images, "label": labels}), folder / "a.parquet", row_group_size=5)
    convert(source, folder / "ffcv.beton", ConversionConfig("ffcv", max_side=500, num_workers=0, progress=False))
    return {"shards": folder / "shards", "parquet": folder / "a.parquet", "beton": folder / "ffcv.beton"}

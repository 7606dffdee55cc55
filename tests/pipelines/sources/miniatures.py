"""One small set of photographs in every layout that ImageNet is published in."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as pq

from fixres.pipelines.spec import Source
from tests.coded import coded_image, jpeg

# Real synsets with their real numbers, so that 9 and 10, 99 and 100 and both cranes are among them.
NUMBERS = {
    "n01440764": 0,
    "n01443537": 1,
    "n01484850": 2,
    "n01518878": 9,
    "n01530575": 10,
    "n01855672": 99,
    "n01860187": 100,
    "n02012849": 134,
    "n03126707": 517,
    "n03887697": 700,
    "n13133613": 998,
    "n15075141": 999,
}
SYNSETS = tuple(NUMBERS)
NUM_IMAGES = 2 * len(SYNSETS)

Photos = dict[tuple[str, str], bytes]
"""Image bytes by synset and file name."""


def photo(number: int) -> bytes:
    """A JPEG that differs from all others."""
    return jpeg(coded_image(18 + number, 30 - number // 2, number))


def train_photos() -> Photos:
    """Two images of each synset; the names' numbers do not sort as numbers."""
    names = [(synset, f"{synset}_{k}.JPEG") for synset in SYNSETS for k in (10, 9)]
    return {key: photo(number) for number, key in enumerate(names)}


def val_photos() -> Photos:
    """As many images, named like the val images, so that names do not reveal classes."""
    order = [(7 * number) % NUM_IMAGES for number in range(NUM_IMAGES)]
    names = [(SYNSETS[place % len(SYNSETS)], f"ILSVRC2012_val_{k:08d}.JPEG") for k, place in enumerate(order, start=1)]
    return {key: photo(number) for number, key in enumerate(names)}


def contents(source: Source) -> list[tuple[str, bytes]]:
    """Class and bytes of every sample, in the source's order."""
    return [(source.classes[source.labels[i]], source.read(i)) for i in range(len(source))]


def expected(photos: Photos) -> list[tuple[str, bytes]]:
    """The result of `contents` in ImageFolder's order."""
    return [(synset, photos[synset, name]) for synset, name in sorted(photos)]


def write_folder(root: Path, photos: Photos) -> Path:
    """An ImageFolder."""
    for (synset, name), data in photos.items():
        (root / synset).mkdir(parents=True, exist_ok=True)
        (root / synset / name).write_bytes(data)
    return root


def tar_bytes(members: Mapping[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive of `members`, as tarfile writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def class_tars(photos: Photos) -> dict[str, bytes]:
    """A tar of images for each synset, neither sorted."""
    by_synset: dict[str, dict[str, bytes]] = {}
    for (synset, name), data in reversed(photos.items()):
        by_synset.setdefault(synset, {})[name] = data
    return {f"{synset}.tar": tar_bytes(members) for synset, members in by_synset.items()}


def write_tar(path: Path, photos: Photos, prefix: str) -> Path:
    """An archive of an ImageFolder, in another order than sorted, with a file that macOS adds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {f"./{prefix}/{synset}/{name}": data for (synset, name), data in reversed(photos.items())}
    path.write_bytes(tar_bytes({f"./{prefix}/._x.jpg": b"x"} | members))
    return path


def write_ilsvrc(root: Path, train: Photos, val: Photos) -> Path:
    """The official archives: a tar of class tars, a flat tar, and the devkit."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(class_tars(train)))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes({name: data for (_, name), data in reversed(val.items())}))
    write_devkit(root, val)
    return root


# ILSVRC2012_ID is not the position in sorted order.
IDS = {synset: 1 + (5 * k) % len(SYNSETS) for k, synset in enumerate(SYNSETS)}


def devkit_members(val: Photos) -> dict[str, bytes]:
    """Files of the devkit: the ground truth is in the order of the images' numbers."""
    in_order = sorted((name, synset) for synset, name in val)
    truth = "".join(f"{IDS[synset]}\n" for _, synset in in_order)
    rows = [(number, synset, f"words of {synset}", 0.0) for synset, number in IDS.items()]
    rows.append((len(IDS) + 1, "n00001740", "entity", 2.0))  # inner nodes follow the leaves
    return {
        "ILSVRC2012_devkit_t12/readme.txt": b"The devkit",
        "ILSVRC2012_devkit_t12/data/meta.mat": mat_file(rows),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }


def write_devkit(root: Path, val: Photos) -> Path:
    """The devkit archive."""
    import gzip

    path = root / "ILSVRC2012_devkit_t12.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes(devkit_members(val))))
    return path


def mat_file(rows: list[tuple[int, str, str, float]], order: str = "<", compress: bool = True) -> bytes:
    """A MATLAB 5 file with the struct array `synsets`; rows of ID, WNID, words, num_children.

    Integers are stored in few bytes and short texts in small elements, as MATLAB does.
    """

    def element(kind: int, data: bytes) -> bytes:
        if 0 < len(data) <= 4:
            return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
        return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)

    def matrix(kind: int, shape: tuple[int, ...], name: str, *parts: bytes) -> bytes:
        head = element(6, struct.pack(f"{order}II", kind, 0)) + element(5, struct.pack(f"{order}{len(shape)}i", *shape))
        return element(14, head + element(1, name.encode()) + b"".join(parts))

    def number(value: float) -> bytes:
        small = value == int(value) and 0 <= value < 256
        content = element(2, bytes([int(value)])) if small else element(9, struct.pack(f"{order}d", value))
        return matrix(6, (1, 1), "", content)

    def text(value: str) -> bytes:
        code = "utf-16-le" if order == "<" else "utf-16-be"
        return matrix(4, (1, len(value)), "", element(4, value.encode(code)))

    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children", "children")
    names = element(5, struct.pack(f"{order}i", 32)) + element(1, b"".join(f.encode().ljust(32, b"\0") for f in fields))
    children = matrix(6, (1, 2), "", element(9, struct.pack(f"{order}dd", 3, 4)))
    cells = b"".join(number(i) + text(w) + text(s) + number(n) + children for i, w, s, n in rows)
    table = matrix(2, (len(rows), 1), "synsets", names, cells)
    other = matrix(6, (1, 1), "answer", element(9, struct.pack(f"{order}d", 42.0)))
    if compress:
        packed = zlib.compress(table)
        table = struct.pack(f"{order}II", 15, len(packed)) + packed
    version = b"\x00\x01IM" if order == "<" else b"\x01\x00MI"
    return b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + version + other + table


def write_kaggle(root: Path, train: Photos, val: Photos) -> Path:
    """Kaggle's layout with its tables."""
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    write_folder(images / "train", train)
    (images / "val").mkdir()
    (images / "test").mkdir()
    for (_, name), data in val.items():
        (images / "val" / name).write_bytes(data)
    (images / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(photo(0))
    rows = [f"{name.removesuffix('.JPEG')},{synset} 85 1 499 272 {synset} 3 4 5 6 \n" for synset, name in val]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{synset} Kaggle's {synset}, x\n" for synset in SYNSETS))
    return root


def write_parquet(
    root: Path,
    photos: Photos,
    split: str,
    names: list[str] | None,
    numbers: Mapping[str, int] = NUMBERS,
    num_shards: int = 3,
    group: int = 3,
) -> Path:
    """Shards named as on the Hugging Face Hub, with its metadata if there are names."""
    root.mkdir(parents=True, exist_ok=True)
    schema = parquet_schema(names)
    items = list(photos.items())
    for k in range(num_shards):
        part = items[k * len(items) // num_shards : (k + 1) * len(items) // num_shards]
        images = [{"bytes": data, "path": name} for (_, name), data in part]
        table = arrow.table([images, [numbers[synset] for (synset, _), _ in part]], schema=schema)
        pq.write_table(table, root / f"{split}-{k:05d}-of-{num_shards:05d}.parquet", row_group_size=group)
    return root


def parquet_schema(names: list[str] | None) -> arrow.Schema:
    """image and label, with the metadata that the datasets library writes."""
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema([("image", image), ("label", arrow.int64())])
    if names is None:
        return schema
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_webdataset(root: Path, photos: Photos, split: str, label: str = "cls") -> Path:
    """Three shards with a member "cls", or "json" with number and synset, or "synset" with JSON of a synset only."""
    root.mkdir(parents=True, exist_ok=True)
    items = list(photos.items())
    for k in range(3):
        members = {}
        for (synset, name), data in items[k * len(items) // 3 : (k + 1) * len(items) // 3]:
            key = name.partition(".")[0]
            facts = {"class_name": synset} | ({"label": NUMBERS[synset], "width": 3} if label == "json" else {})
            members[f"{key}.jpg"] = data
            content = str(NUMBERS[synset]) if label == "cls" else json.dumps(facts)
            members[f"{key}.{'cls' if label == 'cls' else 'json'}"] = content.encode()
        (root / f"imagenet1k-{split}-{k:04d}.tar").write_bytes(tar_bytes(members))
    return root


def write_imagenet_v2(root: Path, photos: Photos, whole: bool = True) -> Path:
    """ImageNet-V2's layout, folders named by the class's number; if `whole`, all others have an image, too."""
    write_folder(root, {(str(NUMBERS[synset]), name): data for (synset, name), data in photos.items()})
    for number in set(range(1000)) - set(NUMBERS.values()) if whole else ():
        (root / str(number)).mkdir()
        (root / str(number) / "1.jpeg").write_bytes(str(number).encode())
    return root


def write_numbered(root: Path, photos: Photos) -> Path:
    """Shards whose labels are numbers without names: positions in SYNSETS."""
    members: dict[str, bytes] = {}
    for number, ((synset, _), data) in enumerate(photos.items()):
        members |= {f"{number}.jpg": data, f"{number}.cls": str(SYNSETS.index(synset)).encode()}
    root.mkdir(parents=True)
    (root / "shard-0.tar").write_bytes(tar_bytes(members))
    return root

"""Engine `roc-gpu` over untouched images delivers the batches of engine `roc` to the bit; the kernels run as host code.

Only the launcher is replaced. With the marker gpu, the same tests run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.pipelines.crop_index import index as index_module
from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.crop_index.location import NAME
from fixres.pipelines.crop_index.records import FileStamp
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.loaders.base import BaseLoader
from fixres.pipelines.sources import open_folder
from fixres.pipelines.spec import BadSampleError, EvalCrop, InputError, ShiftCrop, TrainCrop
from tests.pipelines.crop_index.whole_files import simple
from tests.pipelines.loaders.gpu_engine import check_same, config, parts_of
from tests.pipelines.loaders.untouched import NUM, sources_of, write_photos
from tests.pipelines.roc.conftest import photo
from tests.pipelines.roc.gpu import host_build, host_launcher

Open = Callable[..., BaseLoader]
LATE = 6  # the image that no longer is what its index says, which only the decoder finds
WHOLE = TrainCrop((0.9, 1.0))  # crops in which nothing of an image is left out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of all samplings and restart markers; some cannot be indexed."""
    folder = write_photos(tmp_path / "photos")
    for number, sampling in enumerate(("440", "411", "Gray")):
        (folder / "class1" / f"{sampling}.jpg").write_bytes(simple(photo(200, 310 + number), 88, sampling))
    image = Image.fromarray(photo(170, 210))
    image.save(folder / "class1" / "restart.jpg", restart_marker_blocks=5)
    image.convert("CMYK").save(folder / "class1" / "cmyk.jpg")
    return folder


def epochs(loader: BaseLoader, num: int = 2) -> list[tuple[np.ndarray, ...]]:
    """Batches of some epochs, each at another resolution."""
    found = []
    for epoch, resolution in enumerate((48, 64, 33)[:num]):
        loader.set_epoch(epoch), loader.set_resolution(resolution)
        found += [parts_of(batch) for batch in loader]
    loader.counters.wait_seconds = 0.0
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"num_workers": 0, "crop": TrainCrop(interpolation="random")},
        {
            "crop": EvalCrop(interpolation="bicubic"),
            "shuffle": False,
            "batch_size": 19,
            "min_zoom": 0.3,
            "num_workers": 8,
        },
        {"crop": ShiftCrop(), "drop_last": True, "min_zoom": float("inf")},
    ],
)
def test_whole_epochs_with_changing_resolutions(photos: Path, changes: dict, open_ours: Open) -> None:
    """The first epoch scans the images and leaves the index that engine roc leaves. Eight threads make two chunks."""
    with open_ours(photos, **changes) as ours:
        found = epochs(ours, 3)
    written = (photos / NAME).read_bytes()
    (photos / NAME).unlink()
    with open_loader("roc", config(photos, **changes)) as theirs:
        check_same(found, epochs(theirs, 3))
    assert ours.counters == theirs.counters and ours.counters.num_images > 40
    assert (photos / NAME).read_bytes() == written


def test_crops_from_coarse_levels(tmp_path: Path, open_ours: Open) -> None:
    for number, options in enumerate(({"subsampling": 2}, {"subsampling": 0}, {"progressive": True})):
        path = tmp_path / "photos" / "a" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(220, 300 + number)).save(path, **options)
    build_index(open_folder(tmp_path / "photos"), IndexingConfig(1, progress=False, coarse=True))
    path, changes, shifts = tmp_path / "photos", {"crop": TrainCrop((0.01, 0.4)), "batch_size": 3}, []
    with open_ours(path, **changes) as ours, open_loader("roc", config(path, **changes)) as theirs:
        for epoch in range(12):
            ours.set_epoch(epoch), theirs.set_epoch(epoch)
            (found,), wanted = [parts_of(batch) for batch in ours], [parts_of(batch) for batch in theirs]
            check_same([found], wanted)
            assert (ours.last_shifts == theirs.last_shifts).all()
            shifts.append(ours.last_shifts[np.argsort(found[2])])
    # of the last image there are no checkpoints, so that it is decoded whole or from its level
    assert (np.min(shifts, 0) == 0).all() and (np.max(shifts, 0) > 0).all()


def test_shards_parquet_and_ffcvs_files(tmp_path: Path, open_ours: Open) -> None:
    for path in sources_of(write_photos(tmp_path / "photos"), tmp_path).values():
        with open_ours(path) as ours, open_loader("roc", config(path)) as theirs:
            check_same(epochs(ours, 1), epochs(theirs, 1))
            assert ours.counters.num_images == NUM


def test_two_ranks_deliver_each_sample_once(photos: Path, open_ours: Open) -> None:
    """19 samples on two ranks: the last step has fewer for each, or one and none."""
    for batch_size in (4, 18):
        seen = []
        for rank in range(2):
            changes = {"crop": EvalCrop(), "rank": rank, "world_size": 2, "batch_size": batch_size}
            with open_ours(photos, **changes) as ours, open_loader("roc", config(photos, **changes)) as theirs:
                found = [parts_of(batch) for batch in ours]
                check_same(found, [parts_of(batch) for batch in theirs])
                seen += [index for _, _, indices in found for index in indices]
        assert sorted(seen) == list(range(19))


def test_an_epoch_is_resumed_in_the_middle(photos: Path, open_ours: Open) -> None:
    with open_ours(photos) as whole:
        expected = [parts_of(batch) for batch in whole]
    with open_ours(photos) as first:
        next(iter(first))
        state = first.state_dict()
        with open_ours(photos, num_workers=0) as second:
            second.load_state_dict(state)
            check_same([parts_of(batch) for batch in second], expected[1:])
        first.set_resolution(32)  # ends the iteration
        assert next(iter(first)).images.shape == (7, 32, 32, 3)


def damage(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Damages an image so that no decoder takes it, and another one behind the back of its index; returns its path."""
    monkeypatch.setattr(index_module, "_stamp", lambda _: FileStamp(1, 1, 1))  # a file system without change times
    (photos / "class0" / "02.jpg").write_bytes(b"\xff\xd8 no image")
    build_index(open_folder(photos), IndexingConfig(1, progress=False))
    path = photos / "class0" / f"{LATE:02d}.jpg"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("num_workers", [0, 8])
def test_a_bad_sample_is_replaced_by_the_next_one(
    photos: Path, num_workers: int, open_ours: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = damage(photos, monkeypatch)
    changes = {"on_bad": "replace", "num_workers": num_workers, "crop": WHOLE, "batch_size": 19}
    with open_ours(photos, **changes) as ours, open_loader("roc", config(photos, **changes)) as theirs:
        check_same(epochs(ours), epochs(theirs))
        assert ours.counters == theirs.counters and ours.counters.num_bad_samples == 4
    assert any(f"{path}: " in line and "--overwrite" in line for line in ours.counters.bad_samples)


@host_build.needs_compiler
@pytest.mark.parametrize("is_late", [False, True])
def test_a_bad_sample_stops_the_run(photos: Path, is_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host finds stops at its batch. What the GPU finds, too, unless the GPU is late; then at the next one."""
    path = damage(photos, monkeypatch)
    host_launcher.install(monkeypatch, is_late)
    order = [name.rpartition("/")[2] for name in map(open_folder(photos).name, range(19))]
    for name, late in ((path.name, is_late), ("02.jpg", False)):
        with open_loader("roc-gpu", config(photos, shuffle=False, batch_size=1, crop=WHOLE)) as loader:
            bad = order.index(name)
            loader.load_state_dict(loader.state_dict() | {"position": bad - 1})
            seen = []
            with pytest.raises(BadSampleError, match=name) as caught:
                for batch in loader:
                    seen.append(int(batch.indices[0]))
            assert caught.value.index == bad and seen == [bad - 1] + [bad] * late


@host_build.needs_compiler
def test_only_what_crops_need_is_copied_and_whole_images_are_told(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    launcher = host_launcher.install(monkeypatch)
    build_index(open_folder(photos), IndexingConfig(1, progress=False))
    changes = {"crop": TrainCrop((0.08, 0.2)), "batch_size": 19}
    with open_loader("roc-gpu", config(photos, **changes)) as loader:
        list(loader)
        assert launcher.num_waits == 1
        size = sum(path.stat().st_size for path in photos.rglob("*.jpg"))
        assert launcher.num_bytes_sent < 0.7 * size and loader.counters.pixels_decoded < loader.counters.pixels_stored
    told = "3 of 19 images (15.8 %) are decoded whole: 1 not a JPEG file, 1 progressive, 1 CMYK"
    assert capfd.readouterr().err.count(told) == 1


def test_a_copy_of_images_without_records_is_refused(photos: Path) -> None:
    for resident in ("always", "host"):
        with pytest.raises(InputError, match=f"resident='{resident}' keeps a file with RoC records, and .* has none"):
            open_loader("roc-gpu", config(photos, resident=resident))
    with pytest.raises(InputError, match="engine='roc-gpu' decodes on a GPU, but device='cpu'; use --engine roc"):
        open_loader("roc-gpu", config(photos))

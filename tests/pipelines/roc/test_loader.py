"""Engine `roc`: the same crops as the reference engine, on any number of threads, from any .beton of JPEG images."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.loaders.delivery import HostBuffers, batch_buffer
from fixres.pipelines.loaders.roc import RocLoader
from fixres.pipelines.roc import encoder
from fixres.pipelines.roc.sample_table import ReadAhead
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import BadSampleError, EvalCrop, InputError, LoaderConfig, TrainCrop
from tests.coded import read_box, write_coded_folder


@pytest.fixture(scope="module")
def roc_file(tmp_path_factory, coded_folder) -> Path:
    path = tmp_path_factory.mktemp("roc") / "x.beton"
    convert(coded_folder, path, ConversionConfig("roc", num_workers=0, progress=False))
    return path


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory, coded_folder) -> Path:
    path = tmp_path_factory.mktemp("plain") / "x.beton"
    convert(coded_folder, path, ConversionConfig("ffcv", num_workers=0, progress=False))
    return path


def config(path: Path, **changes: object) -> LoaderConfig:
    options = {"crop": TrainCrop(), "resolution": 64, "batch_size": 5, "shuffle": True, "seed": 3, "num_workers": 2}
    return LoaderConfig(path, **(options | changes))


def epoch_of(loader, epoch: int = 0) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    loader.set_epoch(epoch)
    return [tuple(part.numpy().copy() for part in batch) for batch in loader]


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y) for one, two in zip(a, b, strict=True) for x, y in zip(one, two, strict=True)
    )


@pytest.mark.parametrize(
    "crop", [TrainCrop(interpolation="random"), EvalCrop(interpolation="bicubic"), EvalCrop(1.0, 0.5)]
)
def test_crops_match_the_reference_engine(roc_file, crop):
    ours = RocLoader(config(roc_file, crop=crop, min_zoom=float("inf")))
    with ours, open_loader("torch", config(roc_file, crop=crop, num_workers=0)) as torch_loader:
        for got, wanted in zip(epoch_of(ours, 2), epoch_of(torch_loader, 2), strict=True):
            assert np.array_equal(got[1], wanted[1]) and np.array_equal(got[2], wanted[2])
            difference = np.abs(got[0].astype(int) - wanted[0])
            assert difference.mean() < 0.6 and np.percentile(difference, 99) <= 3


def test_coded_images_show_their_boxes_at_any_level(roc_file, coded_sizes):
    sizes = BetonReader(roc_file).sizes
    with open_loader("roc", config(roc_file, resolution=48)) as loader:
        for images, _, indices in epoch_of(loader, 1):
            chosen = crop_boxes(TrainCrop(), 3, 1, indices, sizes[indices], 48)
            for image, index, box, flip in zip(images, indices, chosen.yxhw, chosen.flip, strict=True):
                height, width = sizes[index]
                y, x, h, w, flipped = read_box(image, height, width)
                slack = 2 + max(height, width) / 100  # JPEG, and the ramps' own steps
                if min(box[2:]) > 12:
                    assert flipped == flip
                    assert np.allclose((y, x, h, w), box, atol=slack), (index, box)
        assert loader.counters.num_by_shift[1] > 0 and loader.counters.num_by_shift[0] > 0


def test_number_of_threads_changes_nothing(roc_file):
    runs = []
    for num_workers in (0, 1, 3):
        with open_loader("roc", config(roc_file, num_workers=num_workers, batch_size=20)) as loader:
            runs.append(epoch_of(loader, 5))
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])


def test_resume_in_mid_epoch_and_change_of_resolution(roc_file):
    with open_loader("roc", config(roc_file)) as loader:
        whole = epoch_of(loader, 4)
        loader.set_epoch(4)
        iterator = iter(loader)
        next(iterator), next(iterator)
        state = loader.state_dict()
        loader.set_epoch(5)
        loader.set_resolution(32)
        assert next(iter(loader)).images.shape == (5, 32, 32, 3)
        loader.set_resolution(64)
        loader.load_state_dict(state)
        rest = [tuple(part.numpy().copy() for part in batch) for batch in loader]
    assert same(rest, whole[2:])
    with open_loader("roc", config(roc_file)) as other:
        other.load_state_dict(state)
        assert same([tuple(part.numpy().copy() for part in batch) for batch in other], whole[2:])


def test_ranks_together_evaluate_each_index_once(roc_file):
    seen = []
    for rank in range(3):
        with open_loader("roc", config(roc_file, crop=EvalCrop(), shuffle=False, rank=rank, world_size=3)) as loader:
            seen += [index for batch in loader for index in batch.indices.tolist()]
            assert len(loader) == 2
    assert sorted(seen) == list(range(24))


def test_counters_show_the_saved_decoding(roc_file, plain_file):
    stored = int(BetonReader(roc_file).sizes.prod(axis=1).sum())
    for path in (roc_file, plain_file):
        with open_loader("roc", config(path)) as loader:
            epoch_of(loader)
        assert loader.counters.num_images == sum(loader.counters.num_by_shift) == 24
        assert loader.counters.pixels_stored == stored and 0 < loader.counters.pixels_decoded < 0.8 * stored


def test_ordinary_files_give_the_same_crops(roc_file, plain_file):
    """Both files hold the same images; those of the RoC file were encoded once more."""
    with open_loader("roc", config(roc_file)) as cut, open_loader("roc", config(plain_file)) as whole:
        for one, two in zip(epoch_of(cut), epoch_of(whole), strict=True):
            assert np.array_equal(one[2], two[2])
            assert np.abs(one[0].astype(int) - two[0]).mean() < 4


def damaged(path: Path, tmp_path: Path, index: int) -> Path:
    """A copy in which the first half of a sample's image and record is overwritten."""
    reader, copy = BetonReader(path), bytearray(path.read_bytes())
    for start, size in (reader.image_spans[index], reader.field_spans("roc")[index]):
        copy[start : start + size // 2] = bytes(size // 2)
    target = tmp_path / "bad.beton"
    target.write_bytes(copy)
    return target


def test_a_damaged_sample_stops_the_run_and_is_named(roc_file, tmp_path):
    path = damaged(roc_file, tmp_path, 7)
    with open_loader("roc", config(path)) as loader:
        with pytest.raises(BadSampleError, match=r"bad\.beton: sample 7: .* is damaged .*; convert") as error:
            list(loader)
        assert error.value.index == 7


def test_a_damaged_sample_is_replaced_and_counted(roc_file, tmp_path):
    path = damaged(roc_file, tmp_path, 7)
    with open_loader("roc", config(path, on_bad="replace")) as loader, open_loader("roc", config(roc_file)) as valid:
        for got, wanted in zip(epoch_of(loader), epoch_of(valid), strict=True):
            changed = wanted[2] == 7
            assert np.array_equal(got[2], np.where(changed, 8, wanted[2]))
            assert np.array_equal(got[0][~changed], wanted[0][~changed])
            assert (got[0][changed].max(axis=(1, 2, 3)) > 0).all() if changed.any() else True
        assert loader.counters.num_bad_samples == 1 and "sample 7" in loader.counters.bad_samples[0]


def test_raw_pixels_are_refused_with_a_remedy(tmp_path):
    fields = pytest.importorskip("ffcv.fields")
    from ffcv.writer import DatasetWriter

    from tests.pipelines.formats.beton_files import Coded

    path = tmp_path / "raw.beton"
    columns = {"image": fields.RGBImageField(), "label": fields.IntField()}
    DatasetWriter(str(path), columns, num_workers=1).from_indexed_dataset(Coded(False))
    with pytest.raises(InputError, match=r"raw pixels.*--format roc"):
        open_loader("roc", config(path))
    with pytest.raises(InputError, match="min_zoom=0"):
        config(path, min_zoom=0)


def test_training_decodes_the_half_size_level_for_smaller_crops_than_testing(tmp_path):
    """The level has 0.75 pixels for each output pixel, which is enough in training."""
    folder, path = write_coded_folder(tmp_path / "photos", [(384, 384)], num_classes=1), tmp_path / "x.beton"
    convert(folder, path, ConversionConfig("roc", num_workers=0, progress=False))
    for crop, shifts, least in ((TrainCrop(scale=(1, 1), ratio=(1, 1)), [0, 1], 0.7), (EvalCrop(1.0), [1, 0], 0.8)):
        settings = config(path, crop=crop, resolution=256, batch_size=1)
        with open_loader("roc", settings) as loader:
            for _ in loader:
                assert settings.zoom == least and loader.counters.num_by_shift[:2] == shifts


def test_kept_batches_do_not_change(roc_file):
    with open_loader("roc", config(roc_file)) as loader:
        kept = list(loader)
        before = [batch.images.clone() for batch in kept]
        loader.set_epoch(1)
        for _ in loader:
            pass
        assert all(a.equal(b.images) for a, b in zip(before, kept, strict=True))


def test_buffers_are_reused_after_the_batch_is_deleted():
    buffers = HostBuffers()

    def take():
        return batch_buffer(buffers, "cpu", 4, 32, 32, 3)

    first = take()
    address = first.data_ptr()
    part = first[1:]
    del first
    gc.collect()
    assert take().data_ptr() != address  # a view still lives
    del part
    gc.collect()
    taken = [take() for _ in range(2)]
    assert address in [tensor.data_ptr() for tensor in taken]
    assert batch_buffer(buffers, "cpu", 64, 64, 64, 3).shape == (64, 64, 64, 3)


def test_epochs_can_be_left_early(roc_file):
    with open_loader("roc", config(roc_file)) as loader:
        for _ in range(5):
            next(iter(loader))
        assert len(list(loader)) == 5
    loader.close()


def test_read_ahead_accepts_any_layout(roc_file):
    reader = BetonReader(roc_file)
    ahead = ReadAhead(reader.data)
    assert not ahead.active
    ahead.active = True
    table = np.column_stack([reader.image_spans, reader.field_spans("roc"), reader.sizes])
    table[3, 2] += 17
    ahead.announce(table)


def test_the_file_is_little_larger_than_an_ordinary_one(tmp_path):
    """Tested on noise-like images. The benchmark measures photographs."""
    from PIL import Image

    from tests.pipelines.roc.conftest import photo

    (tmp_path / "photos" / "a").mkdir(parents=True)
    for k in range(4):
        Image.fromarray(photo(375, 500, k)).save(tmp_path / "photos" / "a" / f"{k}.png")
    sizes = [
        convert(
            tmp_path / "photos", tmp_path / form, ConversionConfig(form, num_workers=0, progress=False)
        ).bytes_written
        for form in ("roc", "ffcv")
    ]
    assert sizes[0] < 1.45 * sizes[1]


def test_stock_ffcv_reads_the_file(roc_file):
    """In a separate process: 10 s of compilation and FFCV's threads. FFCV decodes with libjpeg's fast transform."""
    pytest.importorskip("ffcv")
    code = f"""
import cv2
import numpy as np
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from fixres.pipelines.formats.beton_reader import BetonReader
path = {str(roc_file)!r}
reader, seen = BetonReader(path), 0
pipelines = {{"image": [CenterCropRGBImageDecoder((33, 33), 1.0)], "label": [IntDecoder()], "roc": None}}
order = OrderOption.SEQUENTIAL
for images, labels in Loader(path, batch_size=6, num_workers=1, order=order, drop_last=False, pipelines=pipelines):
    for image, label in zip(images, labels):
        pixels = reader.pixels(seen)
        side = min(pixels.shape[:2])
        y, x = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        wanted = cv2.resize(pixels[y : y + side, x : x + side], (33, 33), interpolation=cv2.INTER_AREA)
        difference = np.abs(image.astype(int) - wanted)
        assert difference.mean() < 1.5 and difference.max() <= 8, (seen, difference.mean(), difference.max())
        assert label == reader.labels[seen]
        seen += 1
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "24"


def test_a_file_with_a_damaged_record_does_not_get_its_final_name(tmp_path, coded_folder, monkeypatch):
    valid = encoder.fit_roc

    def broken(*arguments, **options):
        jpeg, height, width, record = valid(*arguments, **options)
        return jpeg, height, width, record[:-1]

    monkeypatch.setattr(encoder, "fit_roc", broken)
    with pytest.raises(InputError, match="its RoC record is damaged"):
        convert(coded_folder, tmp_path / "x.beton", ConversionConfig("roc", num_workers=0, progress=False))
    assert not list(tmp_path.glob("x.beton"))

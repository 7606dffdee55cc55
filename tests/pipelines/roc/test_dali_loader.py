"""Engine `roc-dali`: pixels match the reference, none comes from outside the box, bad samples are named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.beton_writer import write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import BadSampleError, DALIOptions, EvalCrop, InputError, LoaderConfig, TrainCrop
from tests.pipelines.roc.conftest import photo

pytest.importorskip("nvidia.dali")

from fixres.pipelines.loaders.dali import roc

SIZES = [(180 + 9 * k, 260 - 7 * k) for k in range(24)]
INF = float("inf")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]


def write(path: Path, images: list[np.ndarray], **options: object) -> Path:
    """A RoC file of these images, class 0."""

    def samples() -> Iterator[EncodedSample]:
        for k, image in enumerate(images):
            jpeg, record = encode(image, RocQuality(min_short_side=32, **options))
            yield EncodedSample(jpeg, *image.shape[:2], 0, k, (record,))

    write_beton(path, samples(), len(images), classes=["only"], extra_fields=("roc",))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("photos") / "x.beton", [photo(*size, k) for k, size in enumerate(SIZES)])


def config(path: Path, **changes: object) -> LoaderConfig:
    options = {"crop": TrainCrop(), "resolution": 64, "batch_size": 5, "shuffle": True, "seed": 3, "num_workers": 2}
    return LoaderConfig(path, **(options | changes))


def same(a: list[tuple[np.ndarray, ...]], b: list[tuple[np.ndarray, ...]]) -> bool:
    parts = [zip(one, other, strict=True) for one, other in zip(a, b, strict=True)]
    return all(np.array_equal(x, y) for pairs in parts for x, y in pairs)


def epoch_of(engine: str, path: Path, epoch: int = 0, **changes: object) -> list[tuple[np.ndarray, ...]]:
    with open_loader(engine, config(path, **changes)) as loader:
        loader.set_epoch(epoch)
        return [tuple(part.cpu().numpy().copy() for part in batch) for batch in loader]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("crop", [TrainCrop(), EvalCrop(), EvalCrop(1.0, 0.5)])
@pytest.mark.parametrize(("engine", "zoom"), [("torch", INF), ("roc", 0.8)])
def test_pixels_match_the_other_engines(photos, engine, zoom, crop, device):
    """The reference at full levels, `roc` at coarser ones. 2 gray levels are allowed, 0.2 is measured."""
    changes = {"crop": crop, "min_zoom": zoom, "resolution": 80}
    ours = epoch_of("roc-dali", photos, 2, device=device, **changes)
    for got, wanted in zip(ours, epoch_of(engine, photos, 2, **changes), strict=True):
        assert np.array_equal(got[1], wanted[1]) and np.array_equal(got[2], wanted[2])
        difference = np.abs(got[0].astype(int) - wanted[0])
        mean, most = (0.5, 4) if device == "cpu" else (2, 10)  # nvJPEG has an inverse transform of its own
        assert difference.mean() < mean and np.percentile(difference[:, 2:-2, 2:-2], 99.9) <= most


def test_no_pixel_outside_the_box_is_used(tmp_path):
    """Each image is white outside its box of this epoch. A filter that reaches beyond the box would show it."""
    index, sizes = np.arange(12), np.array([(97 + k, 140 - k) for k in range(12)])
    drawn = crop_boxes(TrainCrop(scale=(0.1, 0.5)), 3, 0, index, sizes, 24)
    images = []
    for (height, width), (y, x, h, w) in zip(sizes, drawn.yxhw, strict=True):
        images.append(np.full((height, width, 3), 255, np.uint8))
        images[-1][y : y + h, x : x + w] = 0
    path = write(tmp_path / "x.beton", images, quality=100, subsampling="4:4:4", num_levels=1)
    for got in epoch_of("roc-dali", path, crop=TrainCrop(scale=(0.1, 0.5)), resolution=24):
        assert got[0].max() < 30  # what the JPEG blocks that straddle the edge smear


def test_counts_match_roc(photos):
    with open_loader("roc-dali", config(photos)) as ours, open_loader("roc", config(photos)) as other:
        list(ours), list(other)
        assert ours.counters.num_by_shift[1] > 0  # coarse levels are used
        for name in ("num_images", "bytes_read", "pixels_decoded", "pixels_stored", "num_by_shift"):
            assert getattr(ours.counters, name) == getattr(other.counters, name)


def test_kept_batches_do_not_change(photos):
    """Buffers of cuts and DALI's outputs are reused, but not while a batch is in use."""
    with open_loader("roc-dali", config(photos)) as loader:
        kept = list(loader)
        before = [batch.images.clone() for batch in kept]
        for epoch in (1, 2):
            loader.set_epoch(epoch)
            for _ in loader:
                pass
        assert all(a.equal(b.images) for a, b in zip(before, kept, strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_new_resolution_holds_from_the_first_batch(photos, num_workers):
    """DALI still holds batches of the old resolution when an iteration is left in the middle."""
    with open_loader("roc-dali", config(photos, num_workers=num_workers)) as loader:
        running = iter(loader)
        next(running), next(running)
        pipeline = loader._pipeline
        loader.set_resolution(40)
        again = [tuple(part.numpy().copy() for part in batch) for batch in loader]
        assert loader._pipeline is pipeline
    wanted = epoch_of("roc-dali", photos, resolution=40)
    assert same(again, wanted)


def damaged(path: Path, target: Path, index: int, where: str) -> Path:
    """A copy in which bytes of a sample are overwritten, so that the cutter finds it or only a decoder does."""
    reader, copy = BetonReader(path), bytearray(path.read_bytes())
    start, size = (int(value) for value in reader.image_spans[index])
    if where == "segments":
        copy[start + size // 2 : start + size] = bytes(size - size // 2)
    else:  # a Huffman table with more codes of 1 bit than there are
        for at in (start, int(reader.field_spans("roc")[index][0])):
            table = copy.index(b"\xff\xc4", at)
            copy[table + 5 : table + 21] = b"\x07" + bytes(15)
    target.write_bytes(copy)
    return target


@pytest.mark.parametrize("where", ["segments", "tables"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_sample_stops_the_run_and_is_named(photos, tmp_path, where, num_workers):
    path = damaged(photos, tmp_path / "bad.beton", 17, where)
    changes = {"crop": EvalCrop(1.0), "shuffle": False, "batch_size": 3, "num_workers": num_workers, "min_zoom": INF}
    with open_loader("roc-dali", config(path, **changes)) as loader:
        seen = []
        with pytest.raises(BadSampleError, match=r"bad\.beton: sample 17: .*; convert") as caught:
            for batch in loader:
                seen += batch.indices.tolist()
        assert caught.value.index == 17 and "\n" not in str(caught.value)
        assert seen == list(range(15 if where == "segments" else len(seen)))
        assert loader.state_dict()["position"] == len(seen)


@pytest.mark.parametrize("where", ["segments", "tables"])
def test_a_damaged_sample_is_replaced_and_counted(photos, tmp_path, where):
    path = damaged(photos, tmp_path / "bad.beton", 17, where)
    changes = {"crop": TrainCrop(scale=(0.9, 1.0)), "min_zoom": INF}
    with open_loader("roc-dali", config(path, on_bad="replace", **changes)) as loader:
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            seen = [tuple(part.numpy().copy() for part in batch) for batch in loader]
            for got, wanted in zip(seen, epoch_of("roc-dali", photos, epoch, **changes), strict=True):
                changed = wanted[2] == 17
                assert np.array_equal(got[2], np.where(changed, 18, wanted[2]))
                assert np.array_equal(got[0][~changed], wanted[0][~changed])
                assert not changed.any() or (got[0][changed] != wanted[0][changed]).mean() > 0.5
            assert loader.counters.num_bad_samples == epoch + 1
        assert all("sample 17" in line for line in loader.counters.bad_samples)


def test_a_sample_that_only_dali_refuses_is_named(photos, tmp_path, monkeypatch):
    """As if the own decoder accepted a sample that DALI refuses."""
    path = damaged(photos, tmp_path / "bad.beton", 17, "tables")
    with open_loader("roc-dali", config(path, crop=EvalCrop(), min_zoom=INF)) as loader:
        monkeypatch.setattr(loader, "_not_decoded_by_us", lambda _: {})
        with pytest.raises(BadSampleError, match=r"sample 17: DALI cannot decode it \(.*\), our decoder can"):
            list(loader)


def test_a_failure_without_bad_samples_is_dalis_own(photos, monkeypatch):
    with open_loader("roc-dali", config(photos)) as loader:
        numbers_of = roc.graph_numbers

        def outside(*arguments):
            start, *rest = numbers_of(*arguments)
            return (start + 10_000, *rest)

        monkeypatch.setattr(roc, "graph_numbers", outside)
        with pytest.raises(InputError, match="DALI failed, but no image is bad: ") as caught:
            list(loader)
        assert not isinstance(caught.value, BadSampleError)


def test_only_bad_samples_are_an_error(photos, tmp_path):
    reader, copy = BetonReader(photos), bytearray(photos.read_bytes())
    for start, size in reader.image_spans:
        copy[start : start + size] = bytes(size)
    path = tmp_path / "bad.beton"
    path.write_bytes(copy)
    with open_loader("roc-dali", config(path, on_bad="replace", min_zoom=INF)) as loader:
        with pytest.raises(BadSampleError, match="24 samples in a row are bad"):
            list(loader)


def test_files_without_records_are_refused_with_a_remedy(tmp_path):
    jpeg, _ = encode(photo(64, 80))
    write_beton(tmp_path / "plain.beton", [EncodedSample(jpeg, 64, 80, 0, 0)], 1, classes=["only"])
    with pytest.raises(InputError, match=r"no RoC records.*--format roc.*--engine roc"):
        open_loader("roc-dali", config(tmp_path / "plain.beton", batch_size=1))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"prefetch": 0}, "dali.prefetch=0"),
        ({"batches_ahead": 0}, "dali.batches_ahead=0"),
        ({"hw_decoder_load": 1.5}, "hw_decoder_load=1.5"),
        ({"preallocate_side": -1}, "preallocate_side=-1"),
    ],
)
def test_impossible_options_are_refused(changes, word):
    with pytest.raises(InputError, match=word):
        DALIOptions(**changes)


def test_the_depth_of_the_queues_changes_no_pixel(photos):
    wanted = epoch_of("roc-dali", photos)
    deep = epoch_of("roc-dali", photos, dali=DALIOptions(batches_ahead=7, prefetch=4))
    assert same(deep, wanted)


@pytest.mark.gpu
@needs_gpu
def test_batches_are_on_the_gpu_and_options_are_used(photos):
    options = DALIOptions(prefetch=3, hw_decoder_load=0.5, preallocate_side=256)
    with open_loader("roc-dali", config(photos, device="cuda", dali=options)) as loader:
        for batch in loader:
            assert all(part.device.type == "cuda" for part in batch)
            assert batch.images.dtype == torch.uint8 and batch.images.is_contiguous()
            assert batch.images.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("load", [0.0, 1.0])
def test_pixels_match_the_reference_with_and_without_the_jpeg_engine(photos, load):
    changes = {"crop": EvalCrop(), "min_zoom": INF, "resolution": 80}
    ours = epoch_of("roc-dali", photos, device="cuda", dali=DALIOptions(hw_decoder_load=load), **changes)
    for got, wanted in zip(ours, epoch_of("torch", photos, **changes), strict=True):
        assert np.array_equal(got[2], wanted[2]) and np.abs(got[0].astype(int) - wanted[0]).mean() < 2

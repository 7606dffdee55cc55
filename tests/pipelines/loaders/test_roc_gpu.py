"""Engine `roc-gpu` delivers the batches of engine `roc` to the bit; the kernels run as host code.

Only the launcher is replaced. With the marker gpu, the same tests run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.pipelines.formats.beton_writer import write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.loaders import open_loader, residency
from fixres.pipelines.loaders.roc_base import RocBase
from fixres.pipelines.roc.gpu.crop_plan import NUM_PLAN, PADDING
from fixres.pipelines.roc.layout import ERRORS, NOT_A_RECORD, NOT_DECODABLE
from fixres.pipelines.spec import BadSampleError, EvalCrop, InputError, Resident, ShiftCrop, TrainCrop
from tests.pipelines.loaders.gpu_engine import check_same, config, parts_of
from tests.pipelines.roc.gpu import host_build, host_launcher
from tests.pipelines.roc.gpu.decoding import records

BROKEN, NO_RECORD = 5, 11  # the sample whose image is damaged, and the one whose record is


def write_file(path: Path, damaged: bool) -> Path:
    """All kinds of records, each twice; two of them damaged: one the host finds, the other only the decoder."""

    def samples() -> list[EncodedSample]:
        made = []
        for index, (image, record, height, width) in enumerate(records() + records()):
            if damaged and index == BROKEN:
                at = image.index(b"\xff\xc4") + 5  # 255 Huffman codes of one bit
                image = image[:at] + b"\xff" + image[at + 1 :]
            if damaged and index == NO_RECORD:
                record = b"no record" + record[9:]
            made.append(EncodedSample(image, height, width, index % 3, index, (record,)))
        return made

    write_beton(path, iter(samples()), len(samples()), classes=("a", "b", "c"), extra_fields=("roc",))
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("sound") / "x.beton", damaged=False)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("damaged") / "x.beton", damaged=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_workers": 0, "crop": TrainCrop(interpolation="random")},
        {"crop": EvalCrop(interpolation="bicubic"), "shuffle": False, "batch_size": 100},
        {"crop": ShiftCrop(), "drop_last": True, "min_zoom": float("inf")},
    ],
)
def test_whole_epochs_with_changing_resolutions(stored: Path, changes: dict, open_ours: Callable[..., RocBase]) -> None:
    with open_ours(stored, **changes) as ours, open_loader("roc", config(stored, **changes)) as theirs:
        for epoch, resolution in enumerate((48, 64, 33)):
            for loader in (ours, theirs):
                loader.set_epoch(epoch)
                loader.set_resolution(resolution)
            check_same([parts_of(batch) for batch in ours], [parts_of(batch) for batch in theirs])
        ours.counters.wait_seconds = theirs.counters.wait_seconds = 0.0
        assert ours.counters == theirs.counters and ours.counters.num_images > 100


def test_two_ranks_deliver_each_sample_once(stored: Path, open_ours: Callable[..., RocBase]) -> None:
    """72 samples on two ranks: the last step has one sample for each, or one and none."""
    for batch_size in (7, 71):
        seen = []
        for rank in range(2):
            changes = {"crop": EvalCrop(), "rank": rank, "world_size": 2, "batch_size": batch_size}
            with open_ours(stored, **changes) as ours, open_loader("roc", config(stored, **changes)) as theirs:
                found = [parts_of(batch) for batch in ours]
                check_same(found, [parts_of(batch) for batch in theirs])
                seen += [index for _, _, indices in found for index in indices]
        assert sorted(seen) == list(range(72))


def test_an_epoch_is_resumed_in_the_middle(stored: Path, open_ours: Callable[..., RocBase]) -> None:
    with open_ours(stored) as whole:
        whole.set_epoch(2)
        expected = [parts_of(batch) for batch in whole]
    with open_ours(stored) as first:
        first.set_epoch(2)
        batches = iter(first)
        for _ in range(4):
            next(batches)
        state = first.state_dict()
        with open_ours(stored, num_workers=0) as second:
            second.load_state_dict(state)
            check_same([parts_of(batch) for batch in second], expected[4:])
        first.set_resolution(32)  # ends the iteration
        assert next(iter(first)).images.shape == (7, 32, 32, 3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_sample_is_replaced_by_the_next_one(
    damaged: Path, num_workers: int, open_ours: Callable[..., RocBase]
) -> None:
    changes = {"on_bad": "replace", "num_workers": num_workers, "min_zoom": float("inf")}
    with open_ours(damaged, **changes) as ours, open_loader("roc", config(damaged, **changes)) as theirs:
        for epoch in range(2):
            ours.set_epoch(epoch), theirs.set_epoch(epoch)
            check_same([parts_of(batch) for batch in ours], [parts_of(batch) for batch in theirs])
        assert ours.counters.bad_samples == theirs.counters.bad_samples
        assert ours.counters.num_bad_samples >= 2 and ours.counters.bytes_read == theirs.counters.bytes_read
        assert any(ERRORS[NOT_DECODABLE] in line for line in ours.counters.bad_samples)
        assert any(ERRORS[NOT_A_RECORD] in line for line in ours.counters.bad_samples)


@host_build.needs_compiler
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(("bad", "code"), [(BROKEN, NOT_DECODABLE), (NO_RECORD, NOT_A_RECORD)])
def test_a_bad_sample_stops_the_run(
    damaged: Path, bad: int, code: int, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host finds stops at its batch. What the GPU finds, too, unless the GPU is late; then at the next one."""
    host_launcher.install(monkeypatch, is_late)
    whole = {"crop": EvalCrop(crop_pct=1.0), "shuffle": False, "batch_size": 1, "min_zoom": float("inf")}
    with open_loader("roc-gpu", config(damaged, **whole)) as loader:
        loader.load_state_dict(loader.state_dict() | {"position": bad - 2})
        seen = []
        with pytest.raises(BadSampleError, match=ERRORS[code][:20].replace("(", r"\(")) as caught:
            for batch in loader:
                seen.append(int(batch.indices[0]))
        assert caught.value.index == bad
        is_seen = is_late and code == NOT_DECODABLE
        assert seen == [bad - 2, bad - 1] + [bad] * is_seen


@host_build.needs_compiler
def test_a_late_error_of_the_last_batch_is_raised(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host_launcher.install(monkeypatch, is_late=True)
    changes = {"crop": EvalCrop(crop_pct=1.0), "shuffle": False, "batch_size": 72, "min_zoom": float("inf")}
    with open_loader("roc-gpu", config(damaged, **changes)) as loader:
        with pytest.raises(BadSampleError):
            list(loader)


@host_build.needs_compiler
def test_one_copy_for_each_batch(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = host_launcher.install(monkeypatch)
    with open_loader("roc-gpu", config(stored, drop_last=True)) as loader:
        num = len(list(loader))
        assert launcher.num_waits == num == 10
        overhead = 70 * 8 * (32 + 4 + 1 + 1 + 1) + 10 * 8
        assert loader.counters.bytes_read < launcher.num_bytes_sent < 1.2 * loader.counters.bytes_read + overhead


@host_build.needs_compiler
def test_a_resident_file_gives_the_same_batches_and_sends_no_bytes_of_images(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = host_launcher.install(monkeypatch)
    with open_loader("roc", config(stored)) as theirs:
        expected = [parts_of(batch) for batch in theirs]
    size = stored.stat().st_size
    for resident, free, is_kept in [
        ("always", 2 * size, True), ("auto", 3 * size, True), ("auto", size, False), ("never", 9 * size, False),
        ("host", 0, True),
    ]:  # fmt: skip
        launcher.num_bytes_free, launcher.num_bytes_sent = free, 0
        with open_loader("roc-gpu", config(stored, resident=resident)) as ours:
            check_same([parts_of(batch) for batch in ours], expected)
            assert (launcher.num_bytes_sent == 72 * 8 * (NUM_PLAN + 4 + 1 + 1 + 1)) is is_kept
        assert (launcher.num_bytes_pinned == size + PADDING) is (resident == "host")
    launcher.num_bytes_free = size
    with pytest.raises(InputError, match=r"resident='always', but .* GB of free memory; use --resident never or host"):
        open_loader("roc-gpu", config(stored, resident="always"))


@host_build.needs_compiler
@pytest.mark.parametrize("resident", ["always", "host"])
def test_loaders_of_one_file_share_its_copy(
    stored: Path, tmp_path: Path, resident: Resident, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_launcher.install(monkeypatch).num_bytes_free = 1 << 40
    settings = {"resident": resident, "num_workers": 0}
    with open_loader("roc-gpu", config(stored, **settings)) as first:
        with open_loader("roc-gpu", config(stored, **settings, resolution=32)) as second:
            assert second._stored is first._stored
        assert len(list(first)) == 11 and len(residency._COPIES) == 1
        other = write_file(tmp_path / "other.beton", damaged=True)
        with open_loader("roc-gpu", config(other, **settings)) as third:
            assert third._stored is not first._stored
    assert not residency._COPIES


def test_a_device_without_a_gpu_is_refused(stored: Path) -> None:
    with pytest.raises(InputError, match="engine='roc-gpu' decodes on a GPU, but device='cpu'; use --engine roc"):
        open_loader("roc-gpu", config(stored))

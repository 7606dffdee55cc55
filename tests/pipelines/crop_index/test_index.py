"""The index of a source: what is known of each image, changed files, several processes, kills, read-only data."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.crop_index.index import CropIndex
from fixres.pipelines.crop_index.journal import journals_of
from fixres.pipelines.crop_index.location import NAME, coarse_places, in_cache, places_of, remedy
from fixres.pipelines.crop_index.store import join
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.sources import open_folder
from fixres.pipelines.spec import InputError, Source
from tests.pipelines.crop_index.made import jpeg


def write_shard(path: Path, images: list[bytes]) -> None:
    """A webdataset shard; the keys begin with its name."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, image in enumerate(images):
            for ending, data in (("cls", b"%d" % (number % 2)), ("jpg", image)):
                member = tarfile.TarInfo(f"{path.stem}{number}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def visit(index: CropIndex, source: Source, indices: list[int]) -> checkpoints.Checkpoints:
    """As an engine does: the files' stamps, then their bytes, then the checkpoints."""
    wanted = np.array(indices)
    stamps = index.stamps(wanted)
    return index.find(wanted, stamps, *join([source.read(one) for one in indices]))


def finished(folder: Path) -> bytes:
    """The index of a process that visits all images and is not disturbed."""
    source = open_folder(folder)
    index = CropIndex(source)
    visit(index, source, list(range(len(source))))
    index.close()
    return (folder / NAME).read_bytes()


def test_the_checkpoints_are_those_of_a_scan(folder: Path) -> None:
    source = open_folder(folder)
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    for _ in range(2):  # scanned, then read
        index = CropIndex(source)
        for known in range(2):
            found = visit(index, source, order)
            for slot, one in enumerate(order):
                sample, words = checkpoints.scan(source.read(one))
                first = int(found.samples[slot, checkpoints.FIRST])
                assert np.array_equal(found.words[first : first + len(words)], words), known
                assert found.samples[slot, :1] == sample[:1] and (found.samples[slot, 2:] == sample[2:]).all()
        assert index.num_known == len(source) and not len(index.unknown())
        index.close()
    assert not journals_of(folder / NAME)
    kinds = np.bincount(CropIndex(source).entries["kind"])
    assert kinds[checkpoints.PROGRESSIVE] == kinds[checkpoints.NOT_JPEG] == 1


def test_a_changed_file_is_noticed_and_its_old_checkpoints_are_not_used(folder: Path) -> None:
    finished(folder)
    source = open_folder(folder)
    replaced, truncated, touched, kept = source.files[:4]
    same_size = bytearray(jpeg(0))
    Path(replaced).write_bytes(jpeg(99, side=56))
    Path(truncated).write_bytes(Path(truncated).read_bytes()[:-40])
    os.utime(touched, ns=(1, 1))
    index = CropIndex(source)
    assert index.unknown().tolist() == [0, 1, 2]
    found = visit(index, source, [0, 1, 2, 3])
    assert found.samples[0, checkpoints.HEIGHT] == 56 and found.samples[1, checkpoints.KIND] == checkpoints.DAMAGED
    assert not len(index.unknown())
    index.close()
    assert finished(folder) == (folder / NAME).read_bytes() and not len(CropIndex(source).unknown())
    # The same size and, as by a copy with its times, the same time: only the time is compared.
    stamp = os.stat(kept)
    same_size[:] = Path(kept).read_bytes()
    same_size[-30] ^= 1
    Path(kept).write_bytes(bytes(same_size))
    os.utime(kept, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    index = CropIndex(source)
    before = (folder / NAME).read_bytes()
    visit(index, source, [3])
    index.close()
    assert before != (folder / NAME).read_bytes()


def test_a_renamed_file_is_another_one(folder: Path) -> None:
    undisturbed = finished(folder)
    source = open_folder(folder)
    os.rename(source.files[0], source.files[0].replace("class0", "class1"))
    source = open_folder(folder)
    assert len(CropIndex(source).unknown()) == 1
    again = finished(folder)
    assert len(again) > len(undisturbed)  # the former name is kept until `fixres index` removes it


def test_a_moved_folder_takes_its_index_along(folder: Path) -> None:
    finished(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert not len(CropIndex(open_folder(moved)).unknown())
    copy = shutil.copytree(moved, folder, copy_function=shutil.copyfile)  # with new times
    source = open_folder(copy)
    index = CropIndex(source)
    assert len(index.unknown()) == len(source)
    visit(index, source, list(range(len(source))))
    assert not len(index.unknown())


def test_shards_are_indexed_by_position(folder: Path) -> None:
    shards = folder.with_name("shards")
    for number in range(2):
        write_shard(shards / f"{number}.tar", [jpeg(k) for k in range(4)])
    source = TarSource(shards)
    index = CropIndex(source)
    found = visit(index, source, list(range(8)))
    assert (found.samples[:, checkpoints.WIDTH] == [40, 41, 42, 43] * 2).all()
    index.close()
    write_shard(shards / "1.tar", [jpeg(k + 9) for k in range(4)])
    source = TarSource(shards)
    index = CropIndex(source)
    assert index.unknown().tolist() == [4, 5, 6, 7]
    assert visit(index, source, [7]).samples[0, checkpoints.WIDTH] == 52 and index.unknown().tolist() == [4, 5, 6]
    index.close()


def test_the_index_of_read_only_data_lies_in_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = finished(folder)
    (folder / NAME).unlink()
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))
    source = open_folder(folder)
    index = CropIndex(source)
    visit(index, source, list(range(len(source))))
    index.close()
    assert not (folder / NAME).exists() and in_cache(folder).read_bytes() == undisturbed
    assert not len(CropIndex(source).unknown())


def test_a_full_disk_does_not_stop_training(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    source = open_folder(folder)
    index, write = CropIndex(source), os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    for _ in range(2):
        found = visit(index, source, [0, 1])
        assert (found.samples[:, checkpoints.KIND] == checkpoints.INDEXED).all()
    monkeypatch.undo()
    index.close()
    assert "the index cannot be written (No space left on device)" in capfd.readouterr().err


def test_damaged_checkpoints_name_the_image(folder: Path) -> None:
    finished(folder)
    source = open_folder(folder)
    whole = bytearray((folder / NAME).read_bytes())
    whole[64 + 3] ^= 16  # in the body of the first entry
    (folder / NAME).write_bytes(whole)
    with pytest.raises(InputError, match=r"0\.jpg: what the index holds of it is .*fixres index \S+data --overwrite"):
        visit(CropIndex(source), source, [0])


def _work(folder: Path, seed: int, pause: float) -> None:
    """A process that visits all images in its own order, slowly."""
    source = open_folder(folder)
    index = CropIndex(source)
    for one in np.random.default_rng(seed).permutation(len(source)).tolist():
        visit(index, source, [one])
        time.sleep(pause)
    index.close()
    os._exit(0)


def test_killed_processes_lose_nothing_and_disturb_nothing(folder: Path) -> None:
    undisturbed = finished(folder)
    rng = np.random.default_rng(5)
    for moment in range(20):
        (folder / NAME).unlink()
        children = []
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                _work(folder, 10 * moment + number, 0.002)
            children.append(pid)
        time.sleep(rng.uniform(0, 0.05))
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert finished(folder) == undisturbed and not journals_of(folder / NAME), moment


def test_the_call_that_makes_an_index_again_can_be_pasted(tmp_path: Path) -> None:
    (data := tmp_path / "my photos").mkdir()
    assert remedy(data, places_of(data)) == f"fixres index '{data}' --overwrite"
    coarse_places(places_of(data)).written.touch()
    assert remedy(data, places_of(data)) == f"fixres index '{data}' --coarse --overwrite"

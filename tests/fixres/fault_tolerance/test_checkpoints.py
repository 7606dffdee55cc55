"""Training checkpoints after kills, full disks and damage. The newest has the highest step; times do not matter."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.fault_tolerance.checkpoints import CheckpointFiles
from fixres.pipelines.spec import InputError


def content(step: int, size: int = 1000) -> dict[str, object]:
    """Tells its step in several places that must agree."""
    return {"step": step, "weights": torch.full((size,), float(step)), "more": [step, (None, True, {"x": "y" * step})]}


def is_whole(found: dict, step: int, size: int = 1000) -> bool:
    same = torch.equal(found["weights"], torch.full((size,), float(step)))
    return same and found["step"] == step and found["more"] == [step, (None, True, {"x": "y" * step})]


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.iterdir())


def test_what_is_written_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path / "a" / "b", keep=2)
    assert files.newest() is None and not (tmp_path / "a").exists()
    for step in (0, 7, 100_000_000, 100_000_001):
        path = files.write(step, content(min(step, 9)))
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == path.stem.split("-")[2]
    assert steps(files.folder) == [100_000_000, 100_000_001]
    assert [one.step for one in files.saved()] == [100_000_001, 100_000_000]
    step, found, passed = files.newest()
    assert (step, passed) == (100_000_001, []) and is_whole(found, 9)


def test_networks_and_optimizers_come_back(tmp_path: Path, tiny_net: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD(tiny_net.parameters(), lr=0.1, momentum=0.9)
    tiny_net(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    CheckpointFiles(tmp_path).write(1, {"net": tiny_net.state_dict(), "optimizer": optimizer.state_dict()})
    found = CheckpointFiles(tmp_path).newest()[1]
    assert all(torch.equal(value, found["net"][name]) for name, value in tiny_net.state_dict().items())
    momenta = [one["momentum_buffer"] for one in optimizer.state_dict()["state"].values()]
    for mine, theirs in zip(momenta, found["optimizer"]["state"].values(), strict=True):
        assert torch.equal(mine, theirs["momentum_buffer"])


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2), Path("x"), torch.float32, {1, 2}, [(np.int64(3),)]])
def test_what_could_not_be_read_back_is_not_written(value: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^content\['a'\].* which a training checkpoint cannot contain"):
        CheckpointFiles(tmp_path).write(1, {"a": value})
    assert not list(tmp_path.iterdir())


def test_a_step_written_twice_is_replaced(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, keep=3)
    files.write(1, content(1))
    files.write(2, content(8))
    files.write(2, content(2))
    assert steps(tmp_path) == [1, 2] and is_whole(files.newest()[1], 2)
    files.write(2, content(2))  # the same content has the same name
    assert steps(tmp_path) == [1, 2] and is_whole(files.newest()[1], 2)


class _Hostile:
    def __reduce__(self) -> tuple:
        return os._exit, (99,)


def _named(folder: Path, step: int, data: bytes) -> None:
    """A file whose name and checksum are right, whatever is in it."""
    (folder / f"state-{step:08d}-{hashlib.sha256(data).hexdigest()[:16]}.pt").write_bytes(data)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def _save(path: Path, what: object) -> None:
    torch.save(what, path)
    _named(path.parent, 3, path.read_bytes())
    path.unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut by a byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "first byte": lambda path: _flip(path, 0),
    "a byte of the weights": lambda path: _flip(path, path.stat().st_size // 2),
    "last byte": lambda path: _flip(path, -1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty with its checksum": lambda path: (path.unlink(), _named(path.parent, 3, b"")),
    "text with its checksum": lambda path: (path.unlink(), _named(path.parent, 3, b"hello")),
    "another pickle": lambda path: _save(path, ["no", "dict"]),
    "unsafe": lambda path: _save(path, {"a": _Hostile()}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_state_is_named_and_the_one_before_it_used(kind: str, tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, keep=3)
    for step in (1, 2, 3):
        path = files.write(step, content(step))
    DAMAGE[kind](path)
    step, found, passed = files.newest()
    assert step == 2 and is_whole(found, 2)
    assert len(passed) == 1 and "state-00000003-" in passed[0] and "\n" not in passed[0]
    # It must not hide the checkpoints of the run that is resumed from step 2, even if only one is kept.
    CheckpointFiles(tmp_path, keep=1).write(3, content(3))
    assert steps(tmp_path) == [3] and files.newest()[::2] == (3, [])


def test_a_later_damaged_state_gives_way(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, keep=1)
    os.truncate(files.write(9, content(9)), 5)
    files.write(4, content(4))
    assert files.newest()[0] == 4 and steps(tmp_path) == [4]


def test_only_damaged_checkpoints_are_an_error_and_stay(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    for step in (1, 2):
        files.write(step, content(step))
    for path in tmp_path.iterdir():
        os.truncate(path, 9)
    with pytest.raises(
        InputError, match=rf"^{tmp_path}: none of the 2 training checkpoints can be read \(.*state-00000002.*remove"
    ):
        files.newest()
    assert steps(tmp_path) == [1, 2]


def test_other_files_are_none_of_its_business(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, keep=1)
    others = ["state-00000009-0123456789abcdef.pt.bak", "state-9-0123456789abcdef.pt", "net.pt"]
    for name in others:
        (tmp_path / name).write_text("x")
    (tmp_path / "state-00000099-0123456789abcdef.pt").mkdir()
    assert files.newest() is None
    files.write(1, content(1))
    assert files.newest()[0] == 1 and all((tmp_path / name).exists() for name in others)


def test_the_clock_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    files = CheckpointFiles(tmp_path)
    for step in (1, 2, 3):
        monkeypatch.setattr(time, "time", lambda step=step: now - 1e6 * step)
        os.utime(files.write(step, content(step)), (now - 1e6 * step,) * 2)
    assert files.newest()[0] == 3 and steps(tmp_path) == [2, 3]


def _states(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("limit", [0, 100, 5000, 300_000, 399_999])
def test_a_full_disk_leaves_the_older_checkpoints(limit: int, tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel itself refuse, in the middle of a tensor or of the file's end."""
    files = CheckpointFiles(tmp_path)
    for step in (1, 2):
        files.write(step, content(step))
    before = _states(tmp_path)
    old_limit, old_handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old_limit[1]))
    try:
        with pytest.raises(OSError) as caught:
            files.write(3, content(3, size=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert caught.value.errno == errno.EFBIG and str(tmp_path / "state-00000003") in str(caught.value.filename)
    assert _states(tmp_path) == before and files.newest()[0] == 2
    files.write(3, content(3))
    assert files.newest()[::2] == (3, [])


@pytest.mark.parametrize(("name", "code"), [("fsync", errno.ENOSPC), ("replace", errno.EIO), ("fsync", errno.EROFS)])
def test_a_failing_disk_leaves_the_older_checkpoints(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = CheckpointFiles(tmp_path)
    for step in (1, 2):
        files.write(step, content(step))
    before = _states(tmp_path)

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            files.write(3, content(3))
    assert _states(tmp_path) == before


def test_a_read_only_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in").chmod(0o500)
    if os.access(tmp_path / "in", os.W_OK):
        pytest.skip("root writes wherever it likes; the failing disk above raises EROFS instead")
    with pytest.raises(PermissionError):
        CheckpointFiles(tmp_path / "in").write(1, content(1))


def test_the_disk_has_it_before_the_name_and_the_name_before_the_old_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of system calls is what a power cut tests."""
    files = CheckpointFiles(tmp_path, keep=1)
    files.write(1, content(1))
    calls: list[str] = []
    replace, fsync, unlink = os.replace, os.fsync, Path.unlink

    def note_fsync(descriptor: int) -> None:
        calls.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def note_unlink(path: Path, missing_ok: bool = False) -> None:
        calls.extend([f"remove {path.name}"] if path.exists() else [])
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "unlink", note_unlink)
    old = files.saved()[0].path.name
    files.write(2, content(2))
    assert calls == ["fsync .state.partial", "rename", f"fsync {tmp_path.name}", f"remove {old}"]


def _write_for_ever(folder: Path, size: int) -> None:
    step = (CheckpointFiles(folder).newest() or (0,))[0]
    while True:
        step += 1
        CheckpointFiles(folder).write(step, content(step % 50, size))


def test_killed_at_any_moment_the_newest_checkpoint_is_intact(tmp_path: Path) -> None:
    rng, size, last, num_partial = random.Random(3), 200_000, 0, 0
    files = CheckpointFiles(tmp_path)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                _write_for_ever(tmp_path, size)
            finally:
                os._exit(1)
        begun = time.monotonic()
        while not any(saved.step > last for saved in files.saved()):  # it makes progress each time
            assert time.monotonic() - begun < 20
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        num_partial += (tmp_path / ".state.partial").exists()
        step, found, passed = files.newest()
        assert step > last and passed == [] and is_whole(found, step % 50, size)
        last = step
    assert num_partial > 0  # at least one died in the middle of a file
    files.write(last + 1, content(1))
    assert not (tmp_path / ".state.partial").exists() and len(list(tmp_path.iterdir())) == 2


def test_memory_holds_no_second_copy(tmp_path: Path) -> None:
    """Written in a child, whose peak grows by far less than the content's 128 MB."""
    if shutil.disk_usage(tmp_path).free < 1 << 30:
        pytest.skip("little disk space")
    child = os.fork()
    if child == 0:
        state = {"weights": torch.ones(32 << 20)}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        CheckpointFiles(tmp_path).write(1, state)
        os._exit(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > 50_000)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

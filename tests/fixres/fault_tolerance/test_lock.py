"""One process to a folder; the lock goes when its process does, whatever its workers do."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixres.fault_tolerance.lock import locked
from fixres.pipelines.spec import InputError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.pipelines.runtime.locks.acquire.__defaults__", (0.2,))


def forked(work: Callable[[int], object]) -> tuple[int, int]:
    """Runs `work` in a child until it is killed; it writes to the pipe when it is ready. Child and what it wrote."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            work(tell)
        finally:
            os._exit(1)
    os.close(tell)
    return child, ready


@contextmanager
def dying(work: Callable[[int], object]) -> Iterator[None]:
    """A child that is ready, and is killed after 0.3 s."""
    child, ready = forked(work)
    os.read(ready, 9)
    killer = threading.Timer(0.3, os.kill, (child, signal.SIGKILL))
    killer.start()
    yield
    killer.join()
    os.waitpid(child, 0)


def _hold(folder: Path) -> Callable[[int], None]:
    def work(tell: int) -> None:
        with locked(folder):
            os.write(tell, b"held")
            time.sleep(60)

    return work


def _hold_with_worker(folder: Path) -> Callable[[int], None]:
    def work(tell: int) -> None:
        with locked(folder):
            worker = os.fork()
            if worker == 0:
                os.write(tell, b"%d" % os.getpid())
                time.sleep(60)
                os._exit(0)
            time.sleep(60)

    return work


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_error_names_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    child, ready = forked(_hold(folder))
    assert os.read(ready, 9) == b"held"
    host = socket.gethostname()
    with pytest.raises(InputError) as caught, locked(folder):
        pass
    line = str(caught.value)
    assert line.startswith(f"{folder}: another process ({child} on {host}, since 2")
    assert line.endswith(") is training there; wait for it, stop it, or choose another --output")
    with locked(tmp_path / "runs" / "b"):
        pass
    end(child)
    with locked(folder):
        pass


def test_it_is_given_back_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            raise ZeroDivisionError
    with locked(tmp_path):
        with pytest.raises(InputError, match=rf"another process \({os.getpid()} on"), locked(tmp_path):
            pass


def test_a_worker_that_outlives_its_killed_process_does_not_hold_it(tmp_path: Path) -> None:
    child, ready = forked(_hold_with_worker(tmp_path))
    worker = int(os.read(ready, 20))
    with pytest.raises(InputError), locked(tmp_path):
        pass
    end(child)
    try:
        os.kill(worker, 0)  # it is alive
        with locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_worker_that_ends_first_does_not_give_it_up(tmp_path: Path) -> None:
    with locked(tmp_path):
        worker = os.fork()
        if worker == 0:
            os._exit(0)
        os.waitpid(worker, 0)
        child, ready = forked(_hold(tmp_path))
        assert os.read(ready, 9) == b""  # it was refused
        os.waitpid(child, 0)


def test_a_process_that_dies_slowly_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.pipelines.runtime.locks.acquire.__defaults__", (20.0,))
    with dying(_hold(tmp_path)), locked(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_the_run_starts(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with locked(tmp_path):
        for _ in range(3):
            with pytest.raises(InputError), locked(tmp_path):
                pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unreadable_note_does_not_matter(tmp_path: Path) -> None:
    with locked(tmp_path):
        tmp_path.with_name(f".{tmp_path.name}.lock").write_bytes(b"\xff\n\x1b[31m" * 1000)
        with pytest.raises(InputError, match="is training there") as caught, locked(tmp_path):
            pass
    assert str(caught.value).isprintable()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """The note of the holder would overwrite another file of the user."""
    (tmp_path / "secret").write_text("keep me")
    (tmp_path / ".run.lock").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "secret").read_text() == "keep me"

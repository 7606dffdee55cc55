"""The worker processes of torch's DataLoader: signals, one line if a worker dies, and an orderly end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from fixres.pipelines.runtime.exit_codes import is_dead_worker
from fixres.pipelines.runtime.process_pool import end_with_parent, main_module_hidden
from fixres.pipelines.spec import InputError


def start_data_worker(_number: int = 0) -> None:
    """A `worker_init_fn`: signals to all processes of a job are left to the training process.

    Job schedulers and `timeout` send SIGTERM or SIGUSR1 to the workers, too. The training process needs them until it
    has saved a training checkpoint, and ends them itself, by its own SIGTERM if nothing else helps.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # threads that start later inherit this
    end_with_parent()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def received(loader: DataLoader, path: object, remedy: str) -> Iterator[Any]:
    """What `loader` gives. Errors in workers must arrive as values.

    Args:
        loader: with or without worker processes.
        path: the data's, for the message.
        remedy: what to do if a worker died, for the message.

    Raises:
        InputError: a worker died, perhaps while it sent a batch.
    """
    try:
        with main_module_hidden():
            iterator = iter(loader)
        yield from iterator
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if isinstance(error, RuntimeError) and not is_dead_worker(error):
            raise
        raise InputError(f"{path}: a worker process died, most often because memory ran out; {remedy}") from error


def end_workers(loader: DataLoader) -> None:
    """Ends the processes of `persistent_workers=True`.

    Python's garbage collection would do it late, and for 5 s each: it closes their queues before it ends them.
    """
    iterator, loader._iterator = loader._iterator, None
    if iterator is not None:
        iterator._shutdown_workers()

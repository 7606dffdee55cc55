"""The worker processes of torch's DataLoader: one line if one of them dies, and an orderly end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from fixres.pipelines.runtime.process_pool import main_module_hidden
from fixres.pipelines.spec import InputError


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
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise  # "Caught RuntimeError in DataLoader worker process 0" is an error of our code
        raise InputError(f"{path}: a worker process died, most often because memory ran out; {remedy}") from error


def end_workers(loader: DataLoader) -> None:
    """Ends the processes of `persistent_workers=True`.

    Python's garbage collection would do it late, and for 5 s each: it closes their queues before it ends them.
    """
    iterator, loader._iterator = loader._iterator, None
    if iterator is not None:
        iterator._shutdown_workers()

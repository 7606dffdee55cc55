"""Worker processes from a clean process, where forking this one is not safe."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext, ForkServerContext


def fork_server() -> ForkServerContext:
    """Starts workers as forks of a server process, of which a process has but one.

    What our workers need the server imports once, for all of them, when it starts. That includes torch, which takes
    seconds, in processes that have it: a worker for conversion does without, but the server may be asked for those of a
    loader later.
    """
    context = multiprocessing.get_context("forkserver")
    loaders = ["pipelines.loaders.pillow"] if "torch" in sys.modules else []
    context.set_forkserver_preload(["pipelines.runtime.process_pool", *loaders])
    return context


def safe_context() -> BaseContext:
    """Forks of this process, or of a server's once DALI was loaded: forks with its threads hung now and then."""
    return fork_server() if "nvidia.dali" in sys.modules else multiprocessing.get_context("fork")


@contextmanager
def main_program_hidden() -> Iterator[None]:
    """Keeps new workers of a server from importing the main program again.

    They need nothing of it; it costs each of them seconds (timm, torchvision), and scripts that do not ask for
    `__name__ == "__main__"` would run a second time.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)

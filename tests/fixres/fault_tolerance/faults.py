"""What happens to training runs in their own processes: `arrange` makes one of these wait for its moment."""

from __future__ import annotations

import builtins
import ctypes
import importlib
import io
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch


def arrange(text: str) -> None:
    """Arranges the fault NAME:ARGUMENT:ARGUMENT."""
    name, *arguments = text.split(":")
    {"before": _before, "after": _after, "step": _step, "after-step": partial(_step, after=True),
     "full": _full, "clock": _clock, "silent": _silent,
     "modest": _modest}[name](*arguments)  # fmt: skip


def _replace(module: str, name: str, made: Callable[[Any], Any]) -> None:
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, last, made(getattr(owner, last)))


def _send(name: str) -> None:
    number = signal.Signals[name]
    if number == signal.SIGINT:  # shells start processes in the background with this one ignored
        signal.signal(number, signal.default_int_handler)
    os.kill(os.getpid(), number)


def _before(module: str, function: str, sent: str) -> None:
    """A signal when a function is called."""

    def made(old: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            _send(sent)
            return old(*arguments, **named)

        return called

    _replace(module, function, made)


def _after(module: str, function: str, sent: str) -> None:
    """A signal when a function is done."""

    def made(old: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            result = old(*arguments, **named)
            _send(sent)
            return result

        return called

    _replace(module, function, made)


def _step(number: str, event: str, after: bool = False) -> None:
    """A signal before or after a training step, counted from 0; or NaN as weights ("poison"), statistics ("spoil")."""
    count = -1

    def made(old: Any) -> Any:
        def step(trainer: Any, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            now = count == int(number)
            if now and not after:
                _happen(event, trainer.net)
            result = old(trainer, *arguments)
            if now and after:
                _happen(event, trainer.net)
            return result

        return step

    _replace("fixres.training.trainer", "Trainer.step", made)


def _happen(event: str, net: torch.nn.Module) -> None:
    if event == "poison":
        with torch.no_grad():
            next(net.parameters()).fill_(torch.nan)
    elif event == "spoil":
        next(value for name, value in net.named_buffers() if name.endswith("running_var")).fill_(torch.nan)
    else:
        _send(event)


def _full(pattern: str, first: str = "0", last: str = "1000000") -> None:
    """The disk has no room for files of that name, from the `first` one written to before the `last`."""
    count, real = -1, io.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        nonlocal count
        if mode[0] in "wa" and re.search(pattern, str(file)):
            count += 1
            if int(first) <= count < int(last):
                file = "/dev/full"  # the kernel itself says so
        return real(file, mode, *arguments, **named)

    io.open = builtins.open = opened  # type: ignore[assignment]


def _clock(hours: str) -> None:
    """The time of day goes back by so much again and again."""
    real, count = time.time, 0

    def now() -> float:
        nonlocal count
        count += 1
        return real() - 3600 * float(hours) * (count // 5)

    time.time = now


def _silent(number: str) -> None:
    """Loaders deliver no more after so many batches."""
    count = 0

    def made(old: Any) -> Any:
        def deliveries(loader: Any, *iteration: int) -> Iterator[Any]:
            nonlocal count
            for delivery in old(loader, *iteration):
                count += 1
                while count > int(number):
                    time.sleep(1)
                yield delivery

        return deliveries

    _replace("fixres.pipelines.loaders.pillow", "TorchLoader._deliveries", made)


def _modest() -> None:
    """Root may write anywhere; without its capabilities the modes of files hold for it, too (capabilities(7))."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0

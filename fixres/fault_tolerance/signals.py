"""Signals that ask a run to save and end; job schedulers send them before they take the machine away."""

from __future__ import annotations

import signal
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignal:
    """Within its block SIGTERM and SIGUSR1 set `name` instead of ending the process.

    The old handlers are restored after the block. A second SIGTERM raises KeyboardInterrupt at once. SIGINT is not
    changed. Python handles signals in the main thread between two bytecode instructions, so a signal during a long
    native call takes effect after the call. Only the main thread may enter the block; other threads get Python's
    ValueError.

    Attributes:
        name: of the first signal received, such as "SIGTERM"; None before.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._num_terms = 0
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in _SIGNALS:
            self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, old in self._old.items():
            # None is a handler that was not set from Python, so Python cannot restore it.
            signal.signal(number, signal.SIG_DFL if old is None else old)

    def _receive(self, number: int, *_: object) -> None:
        self.name = self.name or signal.Signals(number).name
        self._num_terms += number == signal.SIGTERM
        if self._num_terms > 1:
            raise KeyboardInterrupt("a second SIGTERM; stopped at once, without saving")

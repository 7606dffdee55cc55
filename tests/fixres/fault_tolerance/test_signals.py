"""Signals that ask to stop set a flag; a second SIGTERM does not ask."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from fixres.fault_tolerance.signals import StopSignal


def _send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs the handler between two of its instructions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_signal_is_recorded_and_the_process_continues(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with StopSignal() as stop:
        assert stop.name is None
        assert signal.getsignal(signal.SIGINT) == before[2]
        _send(number)
        assert stop.name == number.name
    assert stop.name == number.name
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


def test_a_second_sigterm_ends_at_once_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="second SIGTERM"), StopSignal():
        _send(signal.SIGTERM)
        _send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_warning_before_sigterm_is_not_a_second_one() -> None:
    """Slurm can send SIGUSR1 some time before SIGTERM."""
    with StopSignal() as stop:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            _send(number)
        assert stop.name == "SIGUSR1"


def test_ctrl_c_is_left_alone() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignal():
        signal.raise_signal(signal.SIGINT)


def test_the_handler_before_is_called_again() -> None:
    seen: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with StopSignal():
            _send(signal.SIGUSR1)
        assert seen == []
        _send(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_other_threads_may_not() -> None:
    before, errors = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        try:
            with StopSignal():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(errors) == 1 and signal.getsignal(signal.SIGTERM) == before

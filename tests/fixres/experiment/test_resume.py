"""Runs that are killed or stopped, and resumed: the result is the same to the last bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from fixres.pipelines.runtime.exit_codes import EXIT_PREEMPTED
from tests.fixres.runs import NUM_TRAIN, batches_of, metrics, same_weights, serving, write_recipe

_NUM_BATCHES = NUM_TRAIN // 8


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    recipe, rng = write_recipe(tmp_path), random.Random(7)
    with serving(tmp_path) as server:
        server.start("--config", recipe, "--output", tmp_path / "whole")
        assert server.end() == 0, (tmp_path / "errors").read_text()
        num_kills, round_ = 0, 0
        while num_kills < 20:
            run, code, round_ = tmp_path / f"run{round_}", 1, round_ + 1
            while code != 0:
                child = server.start("--config", recipe, "--output", run, "--resume", "auto")
                server.wait_for_batches(rng.randint(0, 8), child)
                time.sleep(rng.random() * 0.1)
                if num_kills < 20:
                    os.kill(child, signal.SIGKILL)
                code = server.end()
                num_kills += code == -signal.SIGKILL
                assert code in (0, -signal.SIGKILL), (tmp_path / "errors").read_text()
            assert same_weights(run, tmp_path / "whole")
            assert metrics(run) == metrics(tmp_path / "whole")
    assert "resuming the run" in (tmp_path / "errors").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_with_its_own_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    recipe, notes = write_recipe(tmp_path, fault_tolerance={"minutes": 60}), tmp_path / "notes.0"
    with serving(tmp_path) as server:
        server.start("--config", recipe, "--output", tmp_path / "whole")
        assert server.end() == 0
        whole = batches_of(notes)
        notes.unlink()
        codes = []
        while not codes or codes[-1] != 0:
            child = server.start("--config", recipe, "--output", tmp_path / "run", "--resume", "auto")
            server.wait_for_batches(4, child)
            os.kill(child, number)
            codes.append(server.end())
    assert set(codes) == {0, EXIT_PREEMPTED} and len(codes) > 5
    lines = (tmp_path / "errors").read_text()
    assert f"train.py: ended by {number.name}; the same call with --resume auto continues" in lines
    assert "Traceback" not in lines
    # No batch was trained on twice, none was left out.
    assert [batch[1:] for batch in batches_of(notes)] == [batch[1:] for batch in whole]
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert len(whole) == 7 * _NUM_BATCHES

"""Mutated records never cause a crash, an access out of bounds or a change of the next sample."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fixres.pipelines.roc.layout import (
    BAD_BOX,
    BAD_INDEX,
    BAD_LEVEL,
    NOT_A_RECORD,
    NOT_DECODABLE,
    OK,
    OUTSIDE_FILE,
    describe,
)
from fixres.pipelines.spec import InputError
from tests.pipelines.roc.conftest import needs_turbojpeg, record
from tests.pipelines.roc.fuzzer import Fuzzer


@needs_turbojpeg
def test_mutants_are_refused_or_decoded():
    """6,000 mutants in 6 s. The long run is: python -m tests.pipelines.roc.fuzzer --num 100000."""
    fuzzer = Fuzzer(seed=7)
    codes = fuzzer.run(6_000)
    # the fuzzer must reach every check
    for reached in (codes, fuzzer.cut_codes):
        assert {OK, OUTSIDE_FILE, NOT_A_RECORD, BAD_LEVEL, BAD_INDEX, BAD_BOX, NOT_DECODABLE} <= set(reached)


@pytest.mark.slow
@needs_turbojpeg
def test_mutants_with_every_index_checked(tmp_path):
    """The same in a process whose numba code checks each array access. Most of the time is compilation."""
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.pipelines.roc.fuzzer", "--num", "300", "--seed", "8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no crash" in done.stdout


def test_damaged_records_have_plain_messages():
    image, field = record(97, 130)
    with pytest.raises(InputError, match="no header"):
        describe(b"no record" * 20, len(image), 97, 130)
    with pytest.raises(InputError, match="version"):
        describe(field[:4] + b"\x09" + field[5:], len(image), 97, 130)
    with pytest.raises(InputError, match="a level does not fit"):
        describe(field, len(image) - 1, 97, 130)
    with pytest.raises(InputError, match="no header"):
        describe(field[:-1], len(image), 97, 130)

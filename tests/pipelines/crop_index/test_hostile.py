"""Mutated files and checkpoints never cause a crash, an access out of bounds or pixels from outside the file."""

from __future__ import annotations

from fixres.pipelines.crop_index import checkpoints as ck
from fixres.pipelines.roc.layout import BAD_BOX, NOT_AS_INDEXED, OK, OUTSIDE_FILE
from tests.pipelines.crop_index.fuzzer import Fuzzer
from tests.pipelines.roc.conftest import needs_turbojpeg


@needs_turbojpeg
def test_mutants_are_refused_or_decoded():
    """The long run is: python -m tests.pipelines.crop_index.fuzzer --num 100000."""
    fuzzer = Fuzzer(seed=7)
    codes = fuzzer.run(1_500)
    assert {OK, OUTSIDE_FILE, NOT_AS_INDEXED, BAD_BOX} == set(codes)
    assert {ck.INDEXED, ck.NOT_JPEG, ck.DAMAGED, ck.ODD} <= set(fuzzer.kinds)
    assert fuzzer.num_equal > 0.95 * fuzzer.num_compared > 50

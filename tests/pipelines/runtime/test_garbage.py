"""Nothing is collected while modules are loaded, and the collector is afterwards as it was."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from fixres.pipelines.runtime.garbage import without_collection

_IMPORT = """
import gc, fixres
seen = []
gc.callbacks.append(lambda phase, _: seen.append(phase))
fixres.CropDataset
assert "torch" in __import__("sys").modules and gc.isenabled()
assert seen in ([], ["start", "stop"]), seen  # one when it is over
"""


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_as_before(before: bool) -> None:
    assert gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ValueError, match="some"), without_collection():
            with without_collection():
                assert not gc.isenabled()
            raise ValueError("some")
        assert gc.isenabled() == before
    finally:
        gc.enable()


def test_what_a_user_imports_is_collected_once_at_most() -> None:
    subprocess.run([sys.executable, "-c", _IMPORT], check=True, timeout=100)

"""NVRTC compiles the kernels on a machine without a GPU, and they fit a multiprocessor."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.pipelines.roc.gpu import nvrtc
from fixres.pipelines.spec import InputError

pytest.importorskip("cuda.bindings", reason="the CUDA builds of torch install cuda.bindings and NVRTC")
slow = pytest.mark.slow
ARCHITECTURES = ["sm_80", "sm_90", *(pytest.param(f"sm_{k}", marks=slow) for k in (75, 86, 89, 100, 120))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_fit(architecture: str) -> None:
    code, resources = nvrtc.compile_kernels(architecture)
    assert code.startswith(b"\x7fELF") and len(resources) == 5
    assert resources["decode_segments"].num_registers <= 64 and resources["decode_indexed"].num_registers <= 64
    for kernel in resources.values():
        assert kernel.spilled_bytes == 0 and kernel.shared_bytes <= 48 * 1024


def test_machine_code_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled = []

    def compile_kernels(architecture: str) -> tuple[bytes, dict]:
        compiled.append(architecture)
        return architecture.encode(), {}

    monkeypatch.setattr(nvrtc, "_cache_folder", lambda: tmp_path)
    monkeypatch.setattr(nvrtc, "compile_kernels", compile_kernels)
    assert [nvrtc.machine_code(name) for name in ("sm_80", "sm_90", "sm_80")] == [b"sm_80", b"sm_90", b"sm_80"]
    assert compiled == ["sm_80", "sm_90"]
    for file in tmp_path.iterdir():  # damaged files are compiled again
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert nvrtc.machine_code("sm_80") == b"sm_80" and compiled == ["sm_80", "sm_90", "sm_80"]


def test_an_unknown_architecture_is_one_line() -> None:
    with pytest.raises(InputError, match="sm_1"):
        nvrtc.compile_kernels("sm_1")

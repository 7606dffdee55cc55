"""GPU code of other architectures is zeroed, and nothing else: made ELF files, and NVIDIA's tools where they are."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.gpu_bundle.fatbin import Saved, shrink

Entry = tuple[int, int, bytes]  # kind, architecture, code
PTX, CUBIN = 1, 2
ENTRY = st.tuples(
    st.sampled_from([PTX, CUBIN]),
    st.sampled_from([75, 80, 90]),
    st.binary(min_size=8, max_size=40).map(lambda b: b * 8),
)
CONTAINERS = st.lists(st.lists(ENTRY, max_size=4), max_size=3)


def container(entries: list[Entry]) -> bytes:
    body = b"".join(
        struct.pack("<HHIQIIII32x", kind, 0x101, 64, len(code), 0, 0, 0, arch) + code for kind, arch, code in entries
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def library(sections: dict[str, bytes]) -> bytes:
    """An ELF file of 64 bits that has these sections, with bytes between them that belong to none."""
    names = b"\0".join([b"", *(name.encode() for name in sections), b".shstrtab", b""])
    body, heads = b"", [bytes(64)]
    for name, content in [*sections.items(), (".shstrtab", names)]:
        name_at = names.index(b"\0" + name.encode() + b"\0") + 1
        heads.append(struct.pack("<IIQQQQIIQQ", name_at, 1, 0, 0, 64 + len(body), len(content), 0, 0, 8, 0))
        body += content + b"between!" + bytes(-len(content) % 8)
    table = struct.pack("<HHH", 64, len(heads), len(heads) - 1)
    return b"\x7fELF\x02" + bytes(35) + struct.pack("<Q", 64 + len(body)) + bytes(10) + table + body + b"".join(heads)


def read(content: bytes) -> list[list[Entry]]:
    """The entries of each container, walking from head to head."""
    found, place = [], 0
    while (place := content.find(struct.pack("<I", 0xBA55ED50), place)) >= 0:
        end = place + 16 + struct.unpack_from("<Q", content, place + 8)[0]
        place, entries = place + 16, []
        while place < end:
            kind, _, head, size = struct.unpack_from("<HHIQ", content, place)
            (arch,) = struct.unpack_from("<I", content, place + 28)
            entries.append((kind, arch, content[place + head : place + head + size]))
            place += head + size
        found.append(entries)
    return found


@given(CONTAINERS, CONTAINERS)
def test_machine_code_for_the_one_gpu_stays_and_all_else_keeps_its_place(
    fixed: list[list[Entry]], relocated: list[list[Entry]]
) -> None:
    parts = {".text": b"code of the host", ".symtab": b"names of functions"}
    code = [b"fixed..." + b"".join(map(container, fixed)), b"relocate" + b"".join(map(container, relocated))]
    before = library(parts | {".nv_fatbin": code[0], "__nv_relfatbin": code[1], ".dynsym": b"names for the linker"})
    after = bytearray(before)
    saved = shrink(after, 90)
    kept = [[one for one in entries if one[:2] == (CUBIN, 90)] or entries for entries in read(before)]
    assert read(bytes(after)) == kept and len(after) == len(before)
    assert saved.kept + saved.code == len(code[0]) + len(code[1]) - 16 and saved.names == len(b"names of functions")
    # Whatever differs lies within the code and the names of functions.
    changed = {index for index, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}
    places = [range(before.index(part), before.index(part) + len(part)) for part in (parts[".symtab"], *code)]
    assert all(any(index in place for place in places) for index in changed)


def test_without_an_architecture_only_names_go() -> None:
    before = library({".nv_fatbin": container([(CUBIN, 80, b"x" * 64)]), ".strtab": b"names"})
    after = bytearray(before)
    assert shrink(after, None) == Saved(0, 5, 0) and after == before.replace(b"names", bytes(5), 1)


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x01 of 32 bits", b"no library at all" * 10])
def test_other_files_are_left_alone(content: bytes) -> None:
    after = bytearray(content)
    assert shrink(after, 90) == Saved(0, 0, 0) and after == content


def test_a_container_that_goes_over_its_end_is_refused() -> None:
    whole = container([(CUBIN, 80, b"x" * 64)])
    with pytest.raises(ValueError, match="goes over its section's end"):
        shrink(bytearray(library({".nv_fatbin": whole[:-8]})), 90)


@pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("cuobjdump")), reason="CUDA's tools are not here")
def test_nvidias_tool_finds_the_same_code_in_a_real_library(tmp_path: Path) -> None:
    (tmp_path / "one.cu").write_text("__global__ void one(float *x) { x[threadIdx.x] *= 2; }\n")
    targets = [f"--generate-code=arch=compute_{arch},code=sm_{arch}" for arch in (80, 90)]
    subprocess.run(
        ["nvcc", "--shared", "--compiler-options=-fPIC", *targets, "-o", "all.so", "one.cu"], cwd=tmp_path, check=True
    )
    content = bytearray((tmp_path / "all.so").read_bytes())
    assert shrink(content, 90).code > 0
    (tmp_path / "one.so").write_bytes(content)

    def code(file: str) -> dict[str, list[bytes]]:
        """Machine code by architecture, as NVIDIA's tool takes it out."""
        folder = tmp_path / Path(file).stem
        folder.mkdir()
        subprocess.run(["cuobjdump", "--extract-elf", "all", f"../{file}"], cwd=folder, check=True, capture_output=True)
        found = sorted(folder.iterdir())
        return {arch: [path.read_bytes() for path in found if arch in path.name] for arch in ("sm_80", "sm_90")}

    before, after = code("all.so"), code("one.so")
    assert before["sm_80"] and before["sm_90"]
    assert after == {"sm_80": [], "sm_90": before["sm_90"]}

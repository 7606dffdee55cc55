"""Tar archives: the same offsets as tarfile; truncated, damaged or hostile archives end in one line."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.pipelines.formats.tar_index import Memory, Span, is_plain, walk
from fixres.pipelines.spec import InputError
from tests.pipelines.sources.miniatures import tar_bytes

NAMES = ("a.jpg", "b c/ü é.JPEG", "long/" * 60 + "x.jpg", "ﾊﾞ\u0301.png")
FORMATS = (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT)


def positions(data: bytes) -> list[tuple[str, int, int]]:
    descriptor = os.memfd_create("x")
    try:
        os.write(descriptor, data)
        found = [tuple(member) for member in walk(Span(descriptor), "x.tar")]
    finally:
        os.close(descriptor)
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_positions_equal_those_of_tarfile(format: int) -> None:
    names = [name for name in NAMES if format != tarfile.USTAR_FORMAT or len(name) < 200]
    data = tar_bytes({name: os.urandom(700 * k) for k, name in enumerate(names)}, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        wanted = [(m.name, m.offset_data, m.size) for m in tar]
    assert positions(data) == wanted == [tuple(member) for member in walk(Memory(data), "x.tar")]
    assert len(positions(data)) == len(names)


def test_an_archive_in_an_archive(tmp_path: Path) -> None:
    inner = tar_bytes({"1.jpg": b"one", "2.jpg": b"two" * 300})
    (tmp_path / "x.tar").write_bytes(tar_bytes({"zero.tar": b"", "n1.tar": inner, "last": b"z"}))
    with open(tmp_path / "x.tar", "rb") as file:
        outer = {member.name: member for member in walk(Span(file.fileno()), "x.tar")}
        at = outer["n1.tar"]
        found = list(walk(Span(file.fileno(), at.offset, at.size), "n1.tar", at.offset))
        assert [os.pread(file.fileno(), m.size, m.offset) for m in found] == [b"one", b"two" * 300]


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A raw ustar header with a correct checksum and any fields."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


BACKWARDS = b"\xff" + (-1024).to_bytes(11, "big", signed=True)
HUGE = b"\x80" + (1 << 80).to_bytes(11, "big")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(b"a.jpg", BACKWARDS) + bytes(1024), "points backwards|size below 0|not a readable"),
        (
            header(b"a.jpg", b"00000000004\0") + b"x" * 512 + header(b"b", BACKWARDS) + bytes(2048),
            "backwards|no readable",
        ),
        (header(b"a.jpg", HUGE) + bytes(1024), "truncated in the middle of member 'a.jpg'"),
        (header(b"././@LongLink", HUGE, b"L") + bytes(1024), "not a readable tar file"),
        (header(b"././@LongLink", b"\x80" + (1 << 33).to_bytes(11, "big"), b"L") + bytes(1024), "a header of"),
        (header(b"pax", BACKWARDS, b"x") + bytes(1024), "not a readable tar file"),
        (header(b"pax", b"77777777777\0", b"x") + bytes(1024), "not a readable tar file"),
        (header(b"l", b"00000000000\0", b"2") + bytes(1024), "member 'l' is a link"),
        (header(b"l", b"00000000000\0", b"1") + bytes(1024), "member 'l' is a link"),
        (header(b"d", b"00000000000\0", b"3") + bytes(1024), "member 'd' is a link"),
        (tar_bytes({"a.jpg": b"x"}) + tar_bytes({"b.jpg": b"y"}), "has data after its end mark"),
        (tar_bytes({"a.jpg": b"x"}) + bytes(2 << 20), "has data after its end mark"),
        (b"", "not a readable tar file"),
        (b"\x1f\x8b" + bytes(2000), "not a readable tar file"),
    ],
)
def test_hostile_archives_are_reported(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        positions(data)
    assert str(caught.value).startswith("x.tar: ") and "\n" not in str(caught.value)


def test_every_truncation_is_noticed() -> None:
    data = tar_bytes({"a.jpg": b"x" * 600, "b.jpg": b"y" * 512})
    end = 512 + 1024 + 512 + 512
    assert [name for name, *_ in positions(data[: end + 512])] == ["a.jpg", "b.jpg"]
    for size in [*range(0, end + 512, 64), end + 511]:
        with pytest.raises(InputError, match=r"truncated|not a readable"):
            positions(data[:size])


def test_a_damaged_header_does_not_end_the_archive() -> None:
    data = bytearray(tar_bytes({"a.jpg": b"x", "b.jpg": b"y", "c.jpg": b"z"}))
    data[1024 + 150] ^= 1  # checksum of b.jpg, at which tarfile stops as if that were the end
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        assert tar.getnames() == ["a.jpg"]
    with pytest.raises(InputError, match="damaged at byte 1024"):
        positions(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_end_in_one_line_or_positions_within(data: st.DataObject) -> None:
    archive = bytearray(tar_bytes({"a.jpg": b"x" * 99, NAMES[2]: b"y", "c.jpg": b"z"}, tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, 5000))] = data.draw(st.integers(0, 255))
    try:
        found = positions(bytes(archive))
    except InputError as error:
        assert str(error).startswith("x.tar: ")
    else:
        assert all(0 <= offset and 0 <= size and offset + size <= len(archive) for _, offset, size in found)


def test_plain_names() -> None:
    assert all(map(is_plain, ("n01440764", "a b", "küche", "a..b")))
    assert not any(map(is_plain, ("", ".", "..", "a/b", "/a", "a\\b", "a\0b", "a\nb")))

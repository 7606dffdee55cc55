"""A gray JPEG of one block, written symbol by symbol."""

from __future__ import annotations

ZRL, LAST_PLACE, BEHIND_IT = 0xF0, 0xE1, 0xF1
"""AC symbols: sixteen zeros; after three of those, the value 1 for coefficient 63, or for one more, which is none."""


def one_block(symbols: list[int]) -> bytes:
    """8 x 8 pixels; the AC symbols are of the three above, and each value is 1."""
    codes = {ZRL: "00", LAST_PLACE: "01", BEHIND_IT: "10"}
    bits = "0" + "".join(codes[symbol] + "1" * (symbol & 15) for symbol in symbols)  # a DC difference of 0 before
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return b"".join(
        (
            b"\xff\xd8",
            _part(0xDB, bytes([0, *[1] * 64])),
            _part(0xC0, bytes([8, 0, 8, 0, 8, 1, 1, 0x11, 0])),
            _part(0xC4, bytes([0x00, 1, *[0] * 15, 0])),
            _part(0xC4, bytes([0x10, 0, 3, *[0] * 14, *codes])),
            _part(0xDD, bytes([0, 1])),  # a restart marker after each block, so that it can be indexed
            _part(0xDA, bytes([1, 1, 0x00, 0, 63, 0])),
            data.replace(b"\xff", b"\xff\x00"),
            b"\xff\xd9",
        )
    )


def _part(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

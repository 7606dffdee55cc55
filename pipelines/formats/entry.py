"""One converted sample, as writers and the journal of a conversion note it."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A sample that is done with.

    Attributes:
        index: its number in the source.
        label: class number.
        height, width: pixels of the stored image; 0 for a bad sample.
        passed: whether its JPEG was taken over byte for byte.
        sizes: bytes of the stored image and of the extra fields; empty for a bad sample.
        problem: what is wrong with a bad sample, else "".
    """

    index: int
    label: int
    height: int
    width: int
    passed: bool
    sizes: tuple[int, ...]
    problem: str

    @property
    def is_bad(self) -> bool:
        return not self.sizes

"""Image folders for the tests of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.coded import coded_image, jpeg


def photos(root: Path, num_per_class: dict[str, int]) -> Path:
    """An ImageFolder of small different JPEG files."""
    for label, (name, num) in enumerate(num_per_class.items()):
        (root / name).mkdir(parents=True)
        for i in range(num):
            (root / name / f"{i:03d}.jpg").write_bytes(jpeg(coded_image(20 + i, 24 + label, label)))
    return root


def pair(root: Path, train: dict[str, int], val: dict[str, int]) -> Path:
    photos(root / "train", train)
    photos(root / "val", val)
    return root


def listing(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(root)): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))}


def one_line(caught: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)

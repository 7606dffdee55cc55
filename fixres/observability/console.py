"""What a person watching a run sees beside the records: bars and lines on stderr, of the main process only."""

from __future__ import annotations

import sys

from tqdm import tqdm

from fixres.distributed.process_group import is_main


def bar(num_images: int, title: str) -> tqdm:
    """A bar that counts images and vanishes at its end; none where stderr is no terminal."""
    hidden = None if is_main() else True
    return tqdm(total=num_images, desc=title, unit="img", leave=False, mininterval=0.5, disable=hidden)


def log(line: str) -> None:
    """A line on stderr that does not break a bar."""
    if is_main():
        tqdm.write(line, file=sys.stderr)

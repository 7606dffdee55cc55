"""Shows facts about a data set: classes, sizes, bytes, RoC levels. With --output it also draws some images.

fixres inspect train.beton --output samples.png
fixres inspect imagenet/train --json facts.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fixres.cli.output import check_json, check_png, put_json
from fixres.config.parsing import parse as parse_options
from fixres.pipelines.spec import MAX_RESOLUTION, InputError, Source, one_line

_COLUMNS = 8


@dataclass(frozen=True)
class InspectOptions:
    """Options of an inspection."""

    data: Path = field(metadata={"positional": True})
    """A folder of class folders, a .beton file, a folder of .tar shards, or another source of `fixres convert`."""
    output: Path | None = None
    """PNG file to write, with random images and their classes."""
    json: Path | None = None
    """JSON file to write; - prints it instead of the text."""
    num_drawn: int = 32
    """Images in the picture."""
    side: int = 128
    """Side of an image in the picture, in pixels."""
    num_images: int = 2000
    """Images whose headers are read if no table has all sizes."""

    def __post_init__(self) -> None:
        check_png(self.output, "--output")
        check_json(self.json)
        if self.num_drawn < 1 or not 16 <= self.side <= MAX_RESOLUTION:
            raise InputError(
                f"--num-drawn {self.num_drawn} --side {self.side}: draw at least one image, of 16 to {MAX_RESOLUTION}"
                " pixels"
            )
        if self.num_images < 1:
            raise InputError(f"--num-images {self.num_images} must be at least 1")


def parse(arguments: Sequence[str]) -> InspectOptions:
    """The options of the command line."""
    return parse_options(InspectOptions, arguments, __doc__)


def run(options: InspectOptions) -> None:
    """Prints and draws."""
    from fixres.pipelines.inspection.facts import inspect_source
    from fixres.pipelines.inspection.text import as_text
    from fixres.pipelines.sources import open_source

    source = open_source(options.data)
    facts = inspect_source(source, options.data, options.num_images)
    if options.json != Path("-"):
        print(as_text(facts))
    put_json(options.json, asdict(facts))
    bad = [*facts.bad_samples, *(_draw(source, options, options.output) if options.output else ())]
    if bad:
        raise InputError(f"{len(bad)} of the samples looked at cannot be used, the first is {bad[0]}")


def _draw(source: Source, options: InspectOptions, path: Path) -> list[str]:
    """Writes the picture; returns a line for each image that cannot be decoded."""
    from fixres.pipelines.inspection.contact_sheet import check_size, draw_sheet, save_png, stored_images

    check_size(min(options.num_drawn, len(source)), options.side)
    images, captions, bad = stored_images(source, options.num_drawn, options.side)
    heading = one_line(f"{options.data}: {len(images)} of {len(source)} images")
    save_png(draw_sheet([(heading, images, captions)], _COLUMNS), path)
    return bad

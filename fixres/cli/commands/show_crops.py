"""Draws the crops that an engine delivers: training crops of several epochs, then test crops.

fixres show-crops imagenet/val crops.png --engine torch --train-res 128
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixres.cli.output import check_png
from fixres.config.parsing import parse as parse_options
from fixres.pipelines.spec import Engine, EvalCrop, InputError, LoaderConfig, TrainCrop, check_resolution

_COLUMNS = 32  # crops in a row; more crops of a kind continue in the next row


@dataclass(frozen=True)
class ShowCropsOptions:
    """Options of the picture."""

    data: Path = field(metadata={"positional": True})
    """A folder of class folders, a .beton file, or a folder of .tar shards."""
    output: Path = field(metadata={"positional": True})
    """PNG file to write."""
    engine: Engine = "auto"
    """What reads, decodes and crops the images; auto is the fastest one for the data."""
    train_res: int = 128
    """Side of the training crops in pixels."""
    test_res: int | None = None
    """Side of the test crops in pixels; train_res by default."""
    num_images: int = 8
    """Images whose crops are drawn."""
    epochs: int = 3
    """Rows of training crops."""
    crop_pct: float = EvalCrop.crop_pct
    """Side of the center crop over the resized short side in testing."""
    scale: tuple[float, float] = TrainCrop.scale
    """Range of the training crop's area as a share of the image's."""
    seed: int = 0
    """Seeds order, crops and flips."""

    def __post_init__(self) -> None:
        check_png(self.output, "OUTPUT")
        check_resolution(self.train_res)
        check_resolution(self.tested_at)
        if self.num_images < 1 or self.epochs < 0:
            raise InputError(
                f"--num-images {self.num_images} --epochs {self.epochs}: there must be at least one image, and the "
                "number of epochs must not be negative"
            )

    @property
    def tested_at(self) -> int:
        """Side of the test crops in pixels."""
        return self.train_res if self.test_res is None else self.test_res


def parse(arguments: Sequence[str]) -> ShowCropsOptions:
    """The options of the command line."""
    return parse_options(ShowCropsOptions, arguments, __doc__)


def run(options: ShowCropsOptions) -> None:
    """Draws and saves."""
    from fixres.pipelines.inspection.contact_sheet import draw_sheet, save_png

    rows = draw(options)
    columns = min(_COLUMNS, *(len(images) for _, images, _ in rows))
    save_png(draw_sheet(rows, columns), options.output)
    print(options.output)


def draw(options: ShowCropsOptions) -> list[Any]:
    """Rows of crops: training once per epoch, then testing."""
    from fixres.api.splits import engine_for
    from fixres.pipelines.inspection.contact_sheet import check_size, first_crops
    from fixres.pipelines.loaders import open_loader

    test_res = options.tested_at
    rows, most = [], max(options.train_res, test_res)
    common = {"path": options.data, "batch_size": min(options.num_images, _COLUMNS), "seed": options.seed}
    test = LoaderConfig(crop=EvalCrop(options.crop_pct), resolution=test_res, **common)
    train = LoaderConfig(crop=TrainCrop(scale=tuple(options.scale)), resolution=options.train_res, **common)
    engine = engine_for(options.data, options.engine, "cpu")
    with open_loader(engine, train) as loader:
        check_size(min(options.num_images, loader.num_samples) * (options.epochs + 1), most)
        for epoch in range(options.epochs):
            loader.set_epoch(epoch)
            heading = f"{engine}, training at {options.train_res} px, epoch {epoch}"
            rows.append((heading, *first_crops(loader, options.num_images)))
    with open_loader(engine, test) as loader:
        heading = f"{engine}, testing at {test_res} px, crop_pct {options.crop_pct}"
        rows.append((heading, *first_crops(loader, options.num_images)))
    return rows

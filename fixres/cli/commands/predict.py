"""Prints the most probable classes of pictures, with the network's own test transform.

fixres predict runs/demo/fast/finetuned.pt cat.jpg dog.jpg
fixres predict resnet50.tv_in1k cat.jpg --top-k 3 --json -
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fixres.cli.network import open_choice
from fixres.cli.output import check_json, put_json
from fixres.config.checks import check_batch_size, check_device, positive
from fixres.config.jobs import WeightsChoice
from fixres.config.parsing import parse as parse_options
from fixres.pipelines.spec import InputError, check_resolution, one_line


@dataclass(frozen=True)
class PredictOptions(WeightsChoice):
    """Options of a prediction."""

    image: list[Path] = field(default_factory=list, metadata={"positional": True})
    """Image files."""
    top_k: int = 5
    """Classes to print for each image, the most probable ones."""
    test_res: int | None = None
    """Test resolution in pixels; the weights' own by default."""
    batch_size: int = 32
    """Images evaluated at once."""
    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    json: Path | None = None
    """JSON file to write; - prints it instead of the text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_json(self.json)
        check_device(self.device)
        check_batch_size("batch_size", self.batch_size)
        positive("top_k", self.top_k)
        if not self.image:
            raise InputError("IMAGE is missing: one or several image files; see --help")
        if self.test_res is not None:
            check_resolution(self.test_res)


def parse(arguments: Sequence[str]) -> PredictOptions:
    """The options of the command line."""
    return parse_options(PredictOptions, arguments, __doc__)


def run(options: PredictOptions) -> None:
    """Predicts, prints a line for each image."""
    network = open_choice(options, options.device)
    found = network.predict(
        list(options.image), top_k=options.top_k, resolution=options.test_res, batch_size=options.batch_size
    )
    if options.json != Path("-"):
        for image, predictions in zip(options.image, found, strict=True):
            classes = ", ".join(f"{one_line(one.name)} {one.probability:.1%}" for one in predictions)
            print(f"{one_line(str(image))}: {classes}")
    put_json(
        options.json,
        [
            {"image": str(image), "predictions": [one._asdict() for one in predictions]}
            for image, predictions in zip(options.image, found, strict=True)
        ],
    )

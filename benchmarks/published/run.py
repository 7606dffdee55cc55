"""The papers' effects on ImageNet weights that others trained, on labelled pictures of ImageNet's classes.

python -m benchmarks.published --data FOLDER --more FOLDER     # EfficientNet-Lite0, 1, 2 from Python packages
python -m benchmarks.published tf_efficientnet_lite0 resnet50.tv_in1k=FILE mobilenetv1_025=FILE --data FOLDER

Every network is tested at each resolution of the sweep, and adapted and fine-tuned at three: its training resolution,
about 1.5 times that, and the largest of the sweep. The fine-tuning at the training resolution shows what the labels
alone gain. The pictures of `--data` (class folders named by synset, or files such as n01440764_tench.JPEG) are divided
into five folds; each is tested with weights that were fine-tuned on the other four and on `--more`. An interrupted
command resumes with the next resolution.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import BenchmarkOptions, ComputeOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.published.tables import published_table
from benchmarks.published.weights import PACKAGES, PublishedNetwork, open_published
from fixres.config.recipe import FinetuneConfig
from fixres.models.precision import choose_device, choose_precision
from fixres.pipelines.datasets.fingerprints import short_digest
from fixres.pipelines.runtime.atomic_files import write_json

_STEP = 32  # resolutions to fine-tune for are multiples of it


@dataclass(frozen=True, kw_only=True)
class PublishedOptions(ComputeOptions, BenchmarkOptions):
    """Options of the benchmark."""

    networks: list[str] = field(default_factory=lambda: list(PACKAGES), metadata={"positional": True})
    """tf_efficientnet_lite0, 1 or 2, or NAME=FILE with timm's name of any network, or mobilenetv1_025=FILE."""
    data: Path
    """Folder of labelled pictures that are tested."""
    more: Path | None = None
    """Folder of further labelled pictures for fine-tuning, label-free adaptation and statistics."""
    sweep: list[int] = field(default_factory=lambda: [128, 160, 192, 224, 256, 288, 320, 384, 448])
    """Test resolutions in pixels, besides those of the fine-tunings."""
    interpolation: Literal["weights", "bilinear", "bicubic"] = "weights"
    """Filter of the resize; that of the weights by timm's table, bilinear where it is unknown."""
    epochs: int = 4
    """Epochs of each fine-tuning."""
    lr: float = 0.01
    """Peak learning rate of the fine-tunings for a batch of 256."""
    packages: Path = Path("data/published")
    """Folder into which the packages are installed; Python does not see it otherwise."""
    work_dir: Path = Path("data/published")
    """Folder for links to pictures and for results of resolutions that are finished."""
    note: str = ""
    """A sentence about data and machine, shown below the table."""

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "networks": [one.partition("=")[0] for one in self.networks],
            "data": self.data.name,
            "more": self.more and self.more.name,
            "packages": None,
        }


def finetuned_resolutions(train_res: int, sweep: list[int]) -> list[int]:
    """The training resolution, the multiple of 32 next to 1.5 times it, and the largest of the sweep."""
    return sorted({train_res, round(1.5 * train_res / _STEP) * _STEP, max(sweep)})


def measure(options: PublishedOptions) -> dict[str, Any]:
    """Measures all networks; returns the record."""
    from benchmarks.published.pictures import NUM_FOLDS, Pictures

    precision = choose_precision(options.precision, choose_device(options.device))
    environment, networks = conditions(options.data, precision=precision), []
    opened = [open_published(one, options.packages, precision) for one in options.networks]
    pictures = Pictures(options.data, options.more, options.work_dir)
    with Interruption() as interruption:
        for network in opened:
            found: dict[str, Any] = {
                "network": network.name,
                "source": network.source,
                "train_res": network.train_res,
                "crop_pct": network.crop_pct,
                "interpolation": _filter(options, network),
                "resolutions": [],
            }
            networks.append(found)
            for one in _resolutions(options, network, pictures):
                found["resolutions"].append(one)
    counts = {"num_tested": pictures.num_tested, "num_further": len(pictures.labels) - pictures.num_tested}
    return record("published", options.settings(), environment, options.note, interruption.happened,
                  num_folds=NUM_FOLDS, **counts, networks=networks)  # fmt: skip


def _filter(options: PublishedOptions, network: PublishedNetwork) -> str:
    """The filter of the resize for a network."""
    if options.interpolation != "weights":
        return options.interpolation
    return "bilinear" if network.interpolation == "unknown" else network.interpolation


def _resolutions(options: PublishedOptions, network: PublishedNetwork, pictures: Any) -> Iterator[dict[str, Any]]:
    """Figures at each resolution, rising; those in the work folder are not measured again."""
    from benchmarks.published.measurement import Measurement

    used = _filter(options, network)
    config, measurement = FinetuneConfig(epochs=options.epochs, lr=options.lr, augmentation="test"), None
    finetuned = finetuned_resolutions(network.train_res, options.sweep)
    sides = sorted({*options.sweep, *finetuned})
    for test_res in tqdm(sides, desc=network.name, unit=" resolutions", disable=None):
        key = [network.name, network.source, str(options.data), str(options.more), options.epochs, options.lr,
               options.precision, test_res, test_res in finetuned, *([] if used == "bilinear" else [used])]  # fmt: skip
        kept = options.work_dir / f"{network.name}-{test_res}-{short_digest(json.dumps(key))}.json"
        if not kept.is_file():
            measurement = measurement or Measurement(network, pictures, config, {"interpolation": used})
            middle = network.train_res < test_res < max(finetuned)
            write_json(kept, measurement.at(test_res, test_res in finetuned, last_block=middle))
        yield json.loads(kept.read_text())


main = command(PublishedOptions, __doc__, measure, published_table)

"""What FixRes fine-tuning gains at each test resolution, over networks of several seeds, and how activations change.

python -m benchmarks.finetuning --checkpoints runs/savings/seed-*/small/trained.pt --data FOLDER --test-res 96,128

Every fine-tuning starts from the trained weights and uses the crops of the test (augmentation test), so that the
features of its frozen layers are computed once and cached; one variant is timed without the cache as well. The tables
are those of arXiv 1906.06423: accuracy by test resolution (figure 5), share of zeros behind the pooling (section 3.2),
trainable layers (table 2). Ctrl-C keeps the networks that are finished.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.finetuning.tables import finetuning_table
from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import add_options, at_least, sides
from benchmarks.harness.records import Interruption, command, record
from fixres.config.jobs import ActivationsJob, FinetuneJob
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.evaluation.activations import network_activations
from fixres.finetuning.job import finetune_network
from fixres.models.precision import choose_device
from fixres.models.pretrained import open_chosen
from fixres.pipelines.datasets.prepared import PreparedData
from fixres.pipelines.runtime.cli import Parser
from fixres.pipelines.spec import DataConfig, InputError

VARIANTS = {
    "classifier": {"layers": "classifier"},
    "classifier and BatchNorm": {"layers": "classifier_bn"},
    "BatchNorm statistics, no labels": {"adapt": "batchnorm", "epochs": 0},
    "Fréchet map, no labels": {"adapt": "frechet", "epochs": 0},
}
_TIMED = "classifier and BatchNorm"


class Measurement:
    """Measures networks on the same data."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        config = DataConfig(path=options.data, work_dir=options.work_dir)
        self._data = PreparedData(config, device=str(choose_device("auto"))).prepare()
        self._config = FinetuneConfig(epochs=options.epochs, lr=options.lr, augmentation="test")
        self._optim = OptimConfig(batch_size=options.batch_size, weight_decay=5e-4)

    def of(self, checkpoint: Path, bar: tqdm) -> dict[str, Any]:
        """All variants at all resolutions, and the activations, of one network."""
        found: dict[str, Any] = {"checkpoint": checkpoint.parent.parent.name, "finetunings": []}
        job = ActivationsJob(model=str(checkpoint), test_res=self._options.sweep, num_images=1000)
        opened = open_chosen(job, self._data.classes)
        info, statistics = network_activations(job, opened, self._data)
        found |= {"train_res": info.train_res, "seed": info.seed, "model": info.model}
        found["activations"] = [
            {key: value for key, value in asdict(one).items() if key != "quantiles"} for one in statistics
        ]
        for name, settings in VARIANTS.items():
            bar.set_postfix_str(name)
            config = replace(self._config, **settings)
            report = self._finetuned(checkpoint, config)
            found["before"] = _accuracies(report.before)
            found["finetunings"] += [self._finetune(name, one) for one in report.finetunings]
            bar.update()
        uncached = self._finetuned(checkpoint, replace(self._config, cache="no", **VARIANTS[_TIMED]))
        found["uncached"] = [self._finetune(_TIMED, one) for one in uncached.finetunings]
        bar.update()
        return found

    def _finetuned(self, checkpoint: Path, config: FinetuneConfig) -> Any:
        sides = {"test_res": self._options.test_res, "sweep": self._options.sweep}
        with tempfile.TemporaryDirectory() as folder:
            job = FinetuneJob(model=str(checkpoint), output=Path(folder), finetune=config, optim=self._optim, **sides)
            return finetune_network(job, open_chosen(job, self._data.classes), self._data)

    @staticmethod
    def _finetune(name: str, finetuned: Any) -> dict[str, Any]:
        return {
            "variant": name,
            "test_res": finetuned.test_res,
            "trainable_layers": finetuned.layers,
            "adaptation": finetuned.adaptation,
            "top1": _accuracies(finetuned.after)[str(finetuned.test_res)],
            "after": _accuracies(finetuned.after),
            "seconds": finetuned.seconds,
            "epoch_seconds": [epoch.seconds for epoch in finetuned.epochs],
        }


def _accuracies(sweep: list[Any]) -> dict[str, float]:
    return {str(one.test_res): one.top1 for one in sweep}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures all networks; returns the record."""
    environment, networks, measurement = conditions(options.data), [], Measurement(options)
    total = len(options.checkpoints) * (len(VARIANTS) + 1)
    with Interruption() as interruption, tqdm(total=total, desc="fine-tuning", unit=" runs", disable=None) as bar:
        for checkpoint in options.checkpoints:
            networks.append(measurement.of(checkpoint, bar))
    settings = vars(options) | {"checkpoints": [str(path) for path in options.checkpoints]}
    return record("finetuning", settings, environment, options.note, interruption.happened, networks=networks)


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="trained weights, one for each seed")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--test-res", type=sides, default="96,128", help="resolutions to fine-tune for (%(default)s)")
    parser.add_argument("--sweep", type=sides, default="64,96,128,160", help="resolutions to test at (%(default)s)")
    # At least two epochs, because later ones are compared with the first.
    parser.add_argument("--epochs", type=at_least(2), default=4, help="(%(default)s)")
    parser.add_argument("--lr", type=float, default=0.04, help="peak learning rate for a batch of 256 (%(default)s)")
    add_options(parser, batch_size=64, work_dir=Path("data"), note="", json=None)
    options = parser.parse_args()
    options.sweep = sorted({*options.sweep, *options.test_res})
    for path in options.checkpoints:
        if not path.is_file():
            raise InputError(f"{path}: no such checkpoint")
    return options


main = command(_parse, measure, finetuning_table)

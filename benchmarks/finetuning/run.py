"""What fixing gives at each test resolution, over networks of several seeds, beside what their activations do.

python -m benchmarks.finetuning --checkpoints runs/savings/seed-*/small/trained.pt --data FOLDER --test-res 96,128

Every fix begins from the trained weights and sees the test's crops (augmentation test), so that its frozen layers are
evaluated once; the same fix without that is timed as well. The tables are those of arXiv 1906.06423: accuracy over test
resolutions (figure 5), share of zeros behind the pooling (section 3.2), what learns (table 2).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.finetuning.table import finetune_table
from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import sides
from benchmarks.harness.records import finish, record
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.evaluation.activations import ActivationsJob, network_activations
from fixres.finetuning.job import FinetuneJob, finetune_network
from fixres.models.precision import choose_device
from pipelines.datasets.prepared import PreparedData
from pipelines.runtime.cli import Parser, output_file
from pipelines.spec import DataConfig, InputError

VARIANTS = {
    "classifier": {"layers": "classifier"},
    "classifier and BatchNorm": {"layers": "classifier_bn"},
    "BatchNorm statistics, no labels": {"adapt": "batchnorm", "epochs": 0},
    "Fréchet map, no labels": {"adapt": "frechet", "epochs": 0},
}
_TIMED = "classifier and BatchNorm"


class Measurement:
    """One command's worth of networks, all on the same data.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        config = DataConfig(path=options.data, work_dir=options.work_dir)
        self._data = PreparedData(config, device=str(choose_device("auto")))
        self._config = FinetuneConfig(epochs=options.epochs, lr=options.lr, augmentation="test")
        self._optim = OptimConfig(batch_size=options.batch_size, weight_decay=5e-4)

    def of(self, checkpoint: Path, bar: tqdm) -> dict[str, Any]:
        """All variants at all resolutions, and the activations, of one network."""
        found: dict[str, Any] = {"checkpoint": checkpoint.parent.parent.name, "finetunings": []}
        job = ActivationsJob(checkpoint=checkpoint, test_res=self._options.sweep, num_images=1000)
        info, statistics = network_activations(job, self._data, self._data.classes)
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
        options = self._options
        with tempfile.TemporaryDirectory() as folder:
            job = FinetuneJob(
                checkpoint=checkpoint,
                test_res=options.test_res,
                sweep=options.sweep,
                output=Path(folder),
                finetune=config,
                optim=self._optim,
            )
            return finetune_network(job, self._data, self._data.classes)

    @staticmethod
    def _finetune(name: str, finetuned: Any) -> dict[str, Any]:
        return {
            "variant": name,
            "test_res": finetuned.test_res,
            "learning": finetuned.layers,
            "adapted": finetuned.adaptation,
            "top1": _accuracies(finetuned.after)[str(finetuned.test_res)],
            "after": _accuracies(finetuned.after),
            "seconds": finetuned.seconds,
            "epoch_seconds": [epoch.seconds for epoch in finetuned.epochs],
        }


def _accuracies(sweep: list[Any]) -> dict[str, float]:
    return {str(one.test_res): one.top1 for one in sweep}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All networks; Ctrl-C keeps those that are finished."""
    environment, runs, interrupted = conditions(options.data), [], False
    measurement = Measurement(options)
    total = len(options.checkpoints) * (len(VARIANTS) + 1)
    with tqdm(total=total, desc="fixing", unit=" fixes", disable=None) as bar:
        try:
            for checkpoint in options.checkpoints:
                runs.append(measurement.of(checkpoint, bar))
        except KeyboardInterrupt:
            interrupted = True
    return record(
        "finetune",
        target=options.json,
        note=options.note,
        settings={**vars(options), "checkpoints": [str(path) for path in options.checkpoints]},
        environment=environment,
        partial=interrupted,
        networks=runs,
    )


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="trained weights, one for each seed")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("data"), help="where converted data is kept (%(default)s)"
    )
    parser.add_argument("--test-res", default="96,128", help="resolutions to fix for (%(default)s)")
    parser.add_argument("--sweep", default="64,96,128,160", help="resolutions to test at (%(default)s)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.04, help="peak rate for a batch of 256 (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--note", default="", help="a sentence of conditions for below the table")
    parser.add_argument("--json", type=output_file, help="where the figures go, such as benchmarks/results/fix.json")
    options = parser.parse_args()
    for name in ("test_res", "sweep"):
        setattr(options, name, sides(getattr(options, name), name))
    options.sweep = sorted({*options.sweep, *options.test_res})
    for path in options.checkpoints:
        if not path.is_file():
            raise InputError(f"{path}: no such checkpoint")
    if options.epochs < 2:
        raise InputError("epochs must be at least 2: later ones are compared with the first")
    return options


def main() -> None:
    """Measures, prints the tables, writes the file."""
    options = _parse()
    content = measure(options)
    if content["networks"]:
        print(finetune_table(content))
    finish(content, options.json)

"""What FixRes fine-tuning gains at each test resolution, over networks of several seeds, and how activations change.

python -m benchmarks.finetuning runs/savings/seed-*/small/trained.pt --data FOLDER --test-res 96,128

Every fine-tuning starts from the trained weights and uses the crops of the test (augmentation test), so that the
features of its frozen layers are computed once and cached; one variant is timed without the cache as well. The tables
are those of arXiv 1906.06423: accuracy by test resolution (figure 5), share of zeros behind the pooling (section 3.2),
trainable layers (table 2). Ctrl-C keeps the networks that are finished.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.finetuning.tables import finetuning_table
from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import BenchmarkOptions, check_least
from benchmarks.harness.records import Interruption, command, record
from fixres.config.jobs import ActivationsJob, FinetuneJob
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.evaluation.activations import network_activations
from fixres.finetuning.job import finetune_network
from fixres.models.precision import choose_device
from fixres.models.pretrained import open_chosen
from fixres.pipelines.datasets.prepared import PreparedData
from fixres.pipelines.spec import DataConfig, InputError

VARIANTS = {
    "classifier": {"layers": "classifier"},
    "classifier and BatchNorm": {"layers": "classifier_bn"},
    "BatchNorm statistics, no labels": {"adapt": "batchnorm", "epochs": 0},
    "Fréchet map, no labels": {"adapt": "frechet", "epochs": 0},
}
_TIMED = "classifier and BatchNorm"


@dataclass(frozen=True, kw_only=True)
class FinetuningOptions(BenchmarkOptions):
    """Options of the benchmark."""

    checkpoints: list[Path] = field(metadata={"positional": True})
    """Trained weights, one file for each seed."""
    data: Path
    """Folder with train/ and val/."""
    test_res: list[int] = field(default_factory=lambda: [96, 128])
    """Resolutions in pixels to fine-tune for."""
    sweep: list[int] = field(default_factory=lambda: [64, 96, 128, 160])
    """Resolutions in pixels to test at, besides test_res."""
    epochs: int = 4
    """Epochs of each fine-tuning, at least 2: later ones are compared with the first."""
    lr: float = 0.04
    """Peak learning rate for a batch of 256."""
    batch_size: int = 64
    """Images per step."""
    work_dir: Path = Path("data")
    """Folder for converted files, which are kept."""
    note: str = ""
    """A sentence about data and machine, shown below the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, epochs=2)
        for path in self.checkpoints:
            if not path.is_file():
                raise InputError(f"{path}: no such checkpoint")

    @property
    def tested(self) -> list[int]:
        """All resolutions to test at, rising."""
        return sorted({*self.sweep, *self.test_res})

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"sweep": self.tested}


class Measurement:
    """Measures networks on the same data."""

    def __init__(self, options: FinetuningOptions) -> None:
        self._options = options
        config = DataConfig(path=str(options.data), work_dir=options.work_dir)
        self._data = PreparedData(config, device=str(choose_device("auto"))).prepare()
        self._config = FinetuneConfig(epochs=options.epochs, lr=options.lr, augmentation="test")
        self._optim = OptimConfig(batch_size=options.batch_size, weight_decay=5e-4)

    def of(self, checkpoint: Path, bar: tqdm) -> dict[str, Any]:
        """All variants at all resolutions, and the activations, of one network."""
        found: dict[str, Any] = {"checkpoint": checkpoint.parent.parent.name, "finetunings": []}
        job = ActivationsJob(model=str(checkpoint), test_res=self._options.tested, num_images=1000)
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
        sides = {"test_res": self._options.test_res, "sweep": self._options.tested}
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


def measure(options: FinetuningOptions) -> dict[str, Any]:
    """Measures all networks; returns the record."""
    environment, networks, measurement = conditions(options.data), [], Measurement(options)
    total = len(options.checkpoints) * (len(VARIANTS) + 1)
    with Interruption() as interruption, tqdm(total=total, desc="fine-tuning", unit=" runs", disable=None) as bar:
        for checkpoint in options.checkpoints:
            networks.append(measurement.of(checkpoint, bar))
    return record("finetuning", options.settings(), environment, options.note, interruption.happened, networks=networks)


main = command(FinetuningOptions, __doc__, measure, finetuning_table)

"""Writes a network for other programs: safetensors, ONNX (checked against torch), or a folder for timm.

fixres export runs/demo/fast/finetuned.pt --format safetensors
fixres export runs/demo/fast/finetuned.pt --format onnx --output net.onnx      # pip install 'roc-fixres[onnx]'
fixres export runs/demo/fast/finetuned.pt --format timm --output net           # timm.create_model('local-dir:net')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fixres.cli.network import open_choice
from fixres.config.jobs import WeightsChoice
from fixres.config.parsing import parse as parse_options
from fixres.pipelines.runtime.atomic_files import check_target
from fixres.pipelines.spec import InputError

_ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "timm": "_timm"}


@dataclass(frozen=True)
class ExportOptions(WeightsChoice):
    """Options of an export."""

    format: Literal["safetensors", "onnx", "timm"] | None = None
    """safetensors and onnx are a file, timm is a folder that timm loads and that can be uploaded as it is."""
    output: Path | None = None
    """File or folder to write; by default beside the weights, with the ending of the format."""
    overwrite: bool = False
    """Replace the output if it exists."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format is None:
            raise InputError("--format is missing; choose safetensors, onnx or timm")
        check_target(self.target, folder=self.format == "timm")
        if self.target.exists() and not self.overwrite:
            raise InputError(f"{self.target} exists; replace it with --overwrite, or choose another --output")

    @property
    def target(self) -> Path:
        """The file or folder to write."""
        weights = Path(self.weights)
        stem = weights.with_suffix("") if weights.is_file() else Path(weights.name)
        return self.output or stem.with_name(stem.name + _ENDINGS[str(self.format)])


def parse(arguments: Sequence[str]) -> ExportOptions:
    """The options of the command line."""
    return parse_options(ExportOptions, arguments, __doc__)


def run(options: ExportOptions) -> None:
    """Exports and prints what was written."""
    network = open_choice(options)
    network.export(options.target, str(options.format), overwrite=options.overwrite)
    print(f"{options.target}: {network.info.model}, {len(network.classes)} classes, as {options.format}")

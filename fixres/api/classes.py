"""Names of a network's outputs, as the user gives them: a list, ImageNet's, a file, data, or a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fixres.models.checkpoint import is_checkpoint, network_classes
from fixres.models.classes import Names
from fixres.models.weights import read_weights
from fixres.pipelines.sources import class_list
from fixres.pipelines.spec import InputError

ClassNames = Sequence[str] | str | os.PathLike[str]
"""Names in order; "imagenet"; or the path of a text file with one name a line, of data, or of a checkpoint of ours."""
_WEIGHTS = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")


def names_from(given: ClassNames | None) -> Names | None:
    """The names that `given` stands for, as `fixres.models.pretrained.open_network` takes them."""
    if given is None or given == "imagenet":
        return given
    if not isinstance(given, str | os.PathLike):
        return tuple(given)
    path = Path(given)
    return _of_checkpoint(path) if path.suffix in _WEIGHTS else class_list(path)


def _of_checkpoint(path: Path) -> tuple[str, ...]:
    weights = read_weights(path)
    if not is_checkpoint(weights):
        raise InputError(f"{path} does not name its classes; give a checkpoint of this project, or a text file")
    return network_classes(weights)

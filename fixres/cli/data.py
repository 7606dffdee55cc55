"""The data of a command: what it names, or what its checkpoint was trained on."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from fixres.config.jobs import ActivationsJob, EvaluateJob, ExtractJob, FinetuneJob
from fixres.pipelines.spec import GENERATED, DataConfig, InputError, one_line

_MAX_LOOKED_AT = 100_000


def check_data(config: DataConfig) -> None:
    """Raises InputError if no data is named, or if it does not exist."""
    if config.path is None:
        raise InputError("no data is named; give --data FOLDER (photographs or converted data), or --data scenes")
    if config.path not in GENERATED and not Path(config.path).exists():
        raise InputError(f"--data {config.path} does not exist; give a folder of photographs, or converted data")


def data_of(job: ActivationsJob | EvaluateJob | ExtractJob | FinetuneJob) -> DataConfig:
    """The job's data, or that of its checkpoint.

    A checkpoint may be anybody's. On its word, nothing is downloaded, nothing is written but into the job's work_dir,
    and no folder is searched that does not have its classes.

    Raises:
        InputError: neither is known, or the checkpoint's data is not to be used without being named.
    """
    from fixres.models.checkpoint import stored_info
    from fixres.models.pretrained import names_file
    from fixres.models.timm_folder import weights_in
    from fixres.observability.console import log

    if job.data.path is not None:
        check_data(job.data)
        return job.data
    info = stored_info(weights_in(Path(job.weights))) if names_file(job.weights) else None
    if info is None or info.data is None:
        raise InputError(f"{job.weights} does not say which data it was trained on; give --data FOLDER")
    stored = replace(job.data, path=info.data["path"], seed=info.data["seed"])
    _check_stored(job.weights, stored, Path(info.data["work_dir"]), info.classes)
    log(one_line(f"data: {stored.path}, on which {job.weights} was trained; --data FOLDER chooses another"))
    return stored


def _check_stored(weights: str, data: DataConfig, work_dir: Path, classes: tuple[str, ...]) -> None:
    from fixres.pipelines.datasets.resolve import is_converted, is_made

    path = str(data.path)
    origin = f"{weights} was trained on {path}"
    if path not in GENERATED and not os.path.exists(path):
        raise InputError(f"{origin}, which does not exist; give --data FOLDER")
    if is_converted(path):
        return
    if work_dir.absolute() != data.work_dir.absolute():
        options = f"--data {shlex.quote(path)} --work-dir {shlex.quote(str(work_dir))}"
        raise InputError(f"{origin}, which was prepared in {work_dir}; give {options}, or other data")
    if path in GENERATED:
        if not is_made(path, data.work_dir, data.seed):
            raise InputError(f"{origin}, which is not in {data.work_dir}; make it with --data {path}")
    elif not _has_folders(path, set(classes)):
        raise InputError(f"{origin}, where not all of its classes are; give --data FOLDER")


def _has_folders(path: str, names: set[str]) -> bool:
    """Whether `path`, or a folder in its first two levels, has folders of all names; looks at so many entries."""
    level, num_left = [path], _MAX_LOOKED_AT
    for _ in range(3):
        below = []
        for folder in level:
            with suppress(OSError, ValueError), os.scandir(folder) as entries:
                found = list(islice(entries, num_left))
                num_left -= len(found)
                inside = [entry for entry in found if entry.is_dir()]
                if names <= {entry.name for entry in inside}:
                    return True
                below += [entry.path for entry in inside]
        level = below
    return False

"""The data of a command: what it names, or what its checkpoint was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fixres.config.jobs import ActivationsJob, EvaluateJob, ExtractJob, FinetuneJob
from fixres.pipelines.spec import GENERATED, DataConfig, InputError


def check_data(config: DataConfig) -> None:
    """Raises InputError if no data is named, or if it does not exist."""
    if config.path is None:
        raise InputError("no data is named; give --data FOLDER (photographs or converted data), or --data scenes")
    if config.path not in GENERATED and not Path(config.path).exists():
        raise InputError(f"--data {config.path} does not exist; give a folder of photographs, or converted data")


def data_of(job: ActivationsJob | EvaluateJob | ExtractJob | FinetuneJob) -> DataConfig:
    """The job's data, or that of its checkpoint.

    Raises:
        InputError: neither is known, or the checkpoint's data is no longer there.
    """
    from fixres.models.checkpoint import stored_data
    from fixres.observability.console import log

    if job.data.path is not None:
        check_data(job.data)
        return job.data
    stored = stored_data(Path(job.weights))
    if stored is None:
        raise InputError(f"{job.weights} does not say which data it was trained on; give --data FOLDER")
    if stored["path"] not in GENERATED and not Path(stored["path"]).exists():
        raise InputError(f"{stored['path']}, on which {job.weights} was trained, does not exist; give --data FOLDER")
    log(f"data: {stored['path']}, on which {job.weights} was trained; --data FOLDER chooses another")
    return replace(job.data, **stored | {"work_dir": Path(stored["work_dir"])})

"""Training runs in processes of their own, for tests that kill them: `python -m tests.fixres.run_script`.

Called with a recipe and further arguments it is `fixres train`, but notes the indices of every training batch, a
line for each before it is trained on, in the file $NOTES.RANK. Called without any it imports all that is slow, then
takes orders from stdin, a line of JSON each: [TOOL, ARGUMENTS, ENVIRONMENT] forks a run of it and prints its process
number; a process number waits for its end and prints its exit code. TOOL is a command of fixres, or a module for
`python -m`. $ERRORS is the file of its stderr, $OUTPUT that of its stdout, if set. An argument --fault=... before the
others makes that happen to a command, see `tests.fixres.fault_tolerance.faults`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from matplotlib.figure import Figure

from fixres.cli.main import call
from fixres.config.parsing import parse_recipe
from fixres.pipelines.datasets import prepared
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import Batch, Loader
from fixres.reporting import plots
from tests.fixres.fault_tolerance import faults


class _Noting:
    """A training loader that notes process, epoch and indices of what it hands out."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._file = Path(f"{os.environ['NOTES']}.{os.environ.get('RANK', 0)}")
        self._num_iterations = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        self._num_iterations += 1
        if self._num_iterations == 1 and os.environ.get("RANK", "0") == "0":
            return iter(self._loader)  # the crops for the report
        return self._noted()

    def _noted(self) -> Iterator[Batch]:
        with open(self._file, "a", buffering=1) as file:
            for batch in self._loader:
                file.write(json.dumps([os.getpid(), self._loader.epoch, batch.indices.tolist()]) + "\n")
                yield batch


class _NotingData(prepared.PreparedData):
    def __call__(self, split: Any, **fields: Any) -> Any:
        loader = super().__call__(split, **fields)
        return _Noting(loader) if split == "train" and fields["drop_last"] and "NOTES" in os.environ else loader


def _run(tool: str, arguments: list[str]) -> None:
    if "." in tool:
        sys.argv = [tool, *arguments]
        runpy.run_module(tool, run_name="__main__", alter_sys=True)
        return
    while arguments[0].startswith("--fault="):
        faults.arrange(arguments.pop(0).removeprefix("--fault="))
    sys.argv = [f"{tool}.py", *arguments]
    # Drawing would take half of a run's time.
    Figure.savefig = lambda _, file, **__: file.write(b"a picture")  # type: ignore[method-assign]
    plots.enlarged = lambda *_, **__: b"a picture"
    prepared.PreparedData = _NotingData  # type: ignore[misc]
    run(lambda: call(tool, arguments))


def _serve() -> None:
    # Whatever a run imports, once for all of them.
    for name in (
        "timm.optim",
        "jinja2",
        "torch.utils.tensorboard",
        "fixres.cli.commands.train",
        "fixres.api.recipes",
        "fixres.experiment.experiment",
        "fixres.finetuning.job",
        "fixres.pipelines.loaders.roc",
        "fixres.pipelines.loaders.pillow",
        "fixres.transfer.detection",
        "fixres.transfer.segmentation",
    ):
        importlib.import_module(name)
    parse_recipe([])
    for line in sys.stdin:
        order = json.loads(line)
        print(_wait_for(order) if isinstance(order, int) else _fork(*order), flush=True)


def _fork(tool: str, arguments: list[str], environment: dict[str, str]) -> int:
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        for name, descriptor in (("OUTPUT", 1), ("ERRORS", 2)):
            if name in environment:
                os.dup2(os.open(environment[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        _end(lambda: _run(tool, arguments))
    return child


def _end(work: Callable[[], None]) -> NoReturn:
    """Ends the process after `work` as Python does, but frees no objects: a fork would copy all pages for that."""
    code = 0
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait_for(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    _run("train", sys.argv[1:]) if sys.argv[1:] else _serve()

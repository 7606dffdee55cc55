"""The command `fixres`: which sub-commands there are, and how one is called."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError

COMMANDS = {
    "train": "trains a network small and fine-tunes it for a larger test resolution",
    "index": "indexes images where they are, so that crops of them are cheap",
    "convert": "converts images into one file for fast loading",
    "finetune": "fine-tunes a network for test resolutions (FixRes)",
    "detect": "trains a detector on a trained backbone",
    "segment": "trains a segmentation network on a trained backbone",
    "evaluate": "tests a network at one or several resolutions",
    "predict": "prints the most probable classes of pictures",
    "export": "writes a network as safetensors, ONNX or for timm",
    "extract": "writes embeddings, softmax and labels of all images",
    "inspect": "shows classes, sizes and formats of a data set",
    "show-crops": "draws the crops that the network sees",
    "advise": "suggests a test resolution for a data set and a training resolution",
    "activations": "compares the classifier's input at test resolutions",
    "estimate": "projects the hours of a training from step speeds",
    "merge": "joins the parts that several conversions made",
}
_FOLDERS = {"detect": "transfer", "segment": "transfer"}  # in commands/, which has a module for each other command
_HELP = """usage: fixres COMMAND [options]

Trains image classifiers at small resolutions, fine-tunes them for a larger one, and tests them there.

commands:
{commands}

fixres COMMAND --help lists the options of a command; fixres --version prints the version."""


def main() -> None:
    """The command line of this process; `fixres.__main__` is its entry point."""
    sys.argv[0] = "fixres"  # error messages begin with it
    run(lambda: dispatch(sys.argv[1:]))


def run_command(name: str) -> None:
    """Runs the command `name` with the arguments of this process, as the files in tools/ do."""
    run(lambda: call(name, sys.argv[1:]))


def dispatch(arguments: Sequence[str]) -> None:
    """Runs the sub-command that the first argument names."""
    name, *others = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(_HELP.format(commands="\n".join(f"  {one:<12} {does}" for one, does in COMMANDS.items())))
    elif name == "--version":
        print(f"roc-fixres {version('roc-fixres')}")
    else:
        command = name.replace("_", "-")
        module(command)  # an unknown one is an error of `fixres` itself
        sys.argv = [f"fixres {command}", *others]  # shown by argparse, error messages and records
        call(command, others)


def call(name: str, arguments: Sequence[str]) -> None:
    """Parses the arguments of a command and runs it."""
    command = module(name)
    command.run(command.parse(arguments))


def module(name: str) -> ModuleType:
    """The module of a command.

    Raises:
        InputError: there is no such command; the message names the nearest.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        raise InputError(f"unknown command {name}; {hint} {', '.join(COMMANDS)}; see fixres --help")
    place = f"{_FOLDERS[name]}.{name}" if name in _FOLDERS else name.replace("-", "_")
    return importlib.import_module(f"fixres.cli.commands.{place}")

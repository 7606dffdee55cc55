"""The command `fixres inspect` in a clone: `python tools/inspect_dataset.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("inspect")

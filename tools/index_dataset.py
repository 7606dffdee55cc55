"""The command `fixres index` in a clone: `python tools/index_dataset.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("index")

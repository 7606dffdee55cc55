"""The command `fixres estimate` in a clone: `python tools/estimate.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("estimate")

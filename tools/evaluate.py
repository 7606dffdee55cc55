"""The command `fixres evaluate` in a clone: `python tools/evaluate.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("evaluate")

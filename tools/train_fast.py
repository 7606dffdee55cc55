"""The command `fixres train` in a clone: `python tools/train_fast.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("train")

"""The command `fixres show-crops` in a clone: `python tools/show_crops.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("show-crops")

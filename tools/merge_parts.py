"""The command `fixres merge` in a clone: `python tools/merge_parts.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("merge")

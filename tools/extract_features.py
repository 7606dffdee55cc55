"""The command `fixres extract` in a clone: `python tools/extract_features.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("extract")

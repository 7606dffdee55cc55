"""The command `fixres advise` in a clone: `python tools/advise_resolution.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("advise")

"""The command `fixres activations` in a clone: `python tools/show_activations.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("activations")

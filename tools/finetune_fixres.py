"""The command `fixres finetune` in a clone: `python tools/finetune_fixres.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("finetune")

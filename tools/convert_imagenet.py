"""The command `fixres convert` in a clone: `python tools/convert_imagenet.py ...`, see fixres/cli/commands."""

from fixres.cli.main import run_command

if __name__ == "__main__":
    run_command("convert")

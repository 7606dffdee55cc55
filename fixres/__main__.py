"""The command `fixres`, and `python -m fixres` for launchers such as torchrun that start a module."""

import signal


def main() -> None:
    """Entry point of both. Ctrl-C ends the process without a traceback, also while its modules are loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background of a shell it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fixres.cli.main import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()

"""`python -m fixres COMMAND` is `fixres COMMAND`, for launchers such as torchrun that start a module."""

from fixres.cli.main import main

if __name__ == "__main__":
    main()

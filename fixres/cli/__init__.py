"""The command `fixres`: `main` finds the sub-command, and every other module here is one, with `parse` and `run`."""

"""The sub-commands of `fixres`, one a module, each with `parse` and `run`."""

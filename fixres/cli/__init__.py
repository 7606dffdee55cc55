"""The command `fixres`: `main` finds the sub-command in `commands`; `data` and `output` are shared by several."""

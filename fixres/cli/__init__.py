"""The command `fixres`: `main` finds the sub-command in `commands`; the other modules are shared by several of them."""

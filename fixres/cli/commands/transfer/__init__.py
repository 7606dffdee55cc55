"""The commands `fixres detect` and `fixres segment`; `run` is what they share."""

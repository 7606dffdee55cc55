"""Measurements of the loaders, the training and the FixRes fine-tuning."""

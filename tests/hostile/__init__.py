"""Generators of checkpoints and recipes that anybody may have written, and a program that tries commands on them."""

"""Stored images with random access, and where they come from."""

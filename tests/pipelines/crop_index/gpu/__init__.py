"""Crops by an index on a GPU: plans, and the kernels as host code."""

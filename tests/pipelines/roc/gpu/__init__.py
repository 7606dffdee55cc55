"""The GPU decoder: its kernels as host code, its compilation, its plans."""

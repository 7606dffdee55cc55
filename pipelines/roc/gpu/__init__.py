"""Decoding of crops on a GPU: from stored bytes to finished pixels in three CUDA kernels, equal to `decoder`'s.

`crop_plan` checks what a batch needs of a file and packs it, `kernels` holds the CUDA C++ sources, `nvrtc` compiles
them, and `arguments` describes what they take. See docs/gpu.md.
"""

"""What every command needs of the operating system: atomic files, locks, worker processes, exit codes.

`numba_cache` compiles kernels, `openmp` sets how threads wait, `allocator` what becomes of freed memory.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "allocator": ["tune_allocator"],
        "atomic_files": ["atomic_file", "atomic_folder", "resumable", "write_json"],
        "exit_codes": ["run"],
        "openmp": ["configure_openmp"],
        "process_pool": ["map_chunks"],
    },
)

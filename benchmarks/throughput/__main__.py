"""`python -m benchmarks.throughput`."""

import sys

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from benchmarks.throughput.run import main
from pipelines.runtime.exit_codes import run

if __name__ == "__main__":
    sys.argv[0] = "benchmarks.throughput"  # the name in messages and records, instead of __main__.py
    run(main)

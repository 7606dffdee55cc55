"""`python -m benchmarks.savings`."""

import sys

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from benchmarks.savings.run import main
from pipelines.runtime.exit_codes import run

if __name__ == "__main__":
    sys.argv[0] = "benchmarks.savings"  # the name in messages and records, instead of __main__.py
    run(main)

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from benchmarks.scaling.run import main
from pipelines.runtime.exit_codes import run

if __name__ == "__main__":
    run(main)

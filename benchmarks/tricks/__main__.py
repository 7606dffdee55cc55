from benchmarks.tricks.run import main
from pipelines.runtime.exit_codes import run

if __name__ == "__main__":
    run(main)

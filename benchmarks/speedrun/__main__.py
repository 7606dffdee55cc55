"""`python -m benchmarks.speedrun`."""

from benchmarks.harness.options import run_package

if __name__ == "__main__":
    run_package("benchmarks.speedrun")

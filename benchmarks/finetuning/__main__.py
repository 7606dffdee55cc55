"""`python -m benchmarks.finetuning`."""

from benchmarks.harness.options import run_package

if __name__ == "__main__":
    run_package("benchmarks.finetuning")

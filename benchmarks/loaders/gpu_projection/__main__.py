"""`python -m benchmarks.loaders.gpu_projection`."""

from benchmarks.harness.options import run_package

if __name__ == "__main__":
    run_package("benchmarks.loaders.gpu_projection")

"""How OpenMP threads wait for each other."""

import os

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def configure_openmp() -> None:
    """Lets OpenMP threads sleep after a short wait. Call it before torch is imported.

    Threads that wait for long take the cores from the decoding workers: on 2 cores with 4 other busy processes a
    training step was 1.7 times faster with sleeping threads. Threads that sleep at once must be woken for each
    operator: on 2 quiet cores that cost a small network a quarter of its speed. 1,000 turns have
    both gains. Only GCC's OpenMP, which torch brings on Linux, knows the number of turns; in others threads sleep.

    OpenMP reads the variables once, when torch loads it. Child processes inherit them. Nothing is done if the user has
    set OMP_WAIT_POLICY, GOMP_SPINCOUNT, or KMP_BLOCKTIME.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="1000")

"""Fault tolerance of runs: training checkpoints, signals, losses that are not finite, stalls, locks.

manager brings the parts together; the other modules are one part each.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["CheckpointFiles"],
        "lock": ["locked"],
        "loss_guard": ["LossGuard"],
        "manager": ["FaultTolerance", "Preempted"],
        "signals": ["StopSignal"],
        "watchdog": ["Watchdog"],
    },
)

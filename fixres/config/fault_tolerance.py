"""Settings of fault tolerance: training checkpoints, losses that are not finite, processes that hang."""

from __future__ import annotations

from dataclasses import dataclass

from fixres.pipelines.spec import InputError, check_fields


@dataclass(frozen=True)
class FaultToleranceConfig:
    """Training checkpoints for `--resume auto`, and when a run is stopped. See docs/reliability.md."""

    minutes: float = 2.0
    """Minutes between two training checkpoints; more if writing them takes more than a hundredth of the time."""
    steps: int = 0
    """Also saves a training checkpoint after every `steps` updates; 0 saves by time alone."""
    keep: int = 2
    """Number of training checkpoints to keep, the newest ones."""
    bad_losses: int = 20
    """Non-finite losses in a row that are allowed with precision fp16, whose loss scaling skips their steps."""
    stall_seconds: float = 1800.0
    """A process without progress for this long is ended, with its stacks in a file; 0 never ends one."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.minutes > 0:
            raise InputError(f"fault_tolerance.minutes={self.minutes} must be above 0")
        if self.keep < 1:
            raise InputError(f"fault_tolerance.keep={self.keep} must be at least 1")
        for name in ("steps", "bad_losses", "stall_seconds"):
            if getattr(self, name) < 0:
                raise InputError(f"fault_tolerance.{name}={getattr(self, name)} must not be negative")

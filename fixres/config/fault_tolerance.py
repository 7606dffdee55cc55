"""How a run survives what happens to it: states on disk, losses that are not numbers, processes that stand still."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.spec import InputError


@dataclass(frozen=True)
class FaultToleranceConfig:
    """What is kept to go on from with `--resume auto`, and when a run is given up. See docs/reliability.md."""

    minutes: float = 2.0
    """Time between two states on disk; more if writing them took more than a hundredth of the time."""
    steps: int = 0
    """A state after every so many updates as well; 0 for none but by time."""
    keep: int = 2
    """States on disk, the newest ones."""
    bad_losses: int = 20
    """Losses in a row that need not be finite with precision fp16, whose loss scaling skips their steps."""
    stall_seconds: float = 1800.0
    """A process that gets and gives no batch for so long is ended, its stacks in a file; 0 never ends one."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise InputError(f"fault_tolerance.minutes={self.minutes} must be above 0")
        if self.keep < 1:
            raise InputError(f"fault_tolerance.keep={self.keep} must be at least 1")
        for name in ("steps", "bad_losses", "stall_seconds"):
            if getattr(self, name) < 0:
                raise InputError(f"fault_tolerance.{name}={getattr(self, name)} must not be negative")

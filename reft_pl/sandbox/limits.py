"""What every sandbox asks of its settings."""

from __future__ import annotations

import math

from reft_pl.errors import UserError


def check_limits(owner: str, timeout_seconds: float, memory_mb: int, workers: int) -> None:
    """Refuse limits that would let every program fail or never end.

    Raises:
        UserError: a limit is not positive, or not finite.
    """
    if not (timeout_seconds > 0 and math.isfinite(timeout_seconds)):
        raise UserError(f"{owner}: timeout_seconds is {timeout_seconds}, but it must be a finite number above 0")
    if memory_mb < 16:
        raise UserError(f"{owner}: memory_mb is {memory_mb}, but a program needs at least 16")
    if workers < 1:
        raise UserError(f"{owner}: workers is {workers}, but at least one must run the programs")

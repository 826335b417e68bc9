"""A pickle that runs code."""

from __future__ import annotations

from collections.abc import Callable


class Payload:
    """Call a function when unpickled without restrictions."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call

"""Telling whether an engine has the policy's weights, however it has laid them out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

CHUNK = 2**22
"""Numbers that are summed at once: 32 MB as 64-bit integers."""

_BITS = {2: torch.int16, 4: torch.int32}


class WeightsDigest:
    """Two sums over the bit patterns of all weights, modulo 2^64: of the patterns, and of their squares.

    An engine fuses, transposes and pads what it loads, so neither names nor shapes nor places can be compared. These sums do
    not depend on them: each weight counts once, wherever it stands. A weight that differs in one bit changes them. What they
    cannot see is the same numbers in other places, which no stale weight is.
    """

    def __init__(self) -> None:
        self._sum = 0
        self._squares = 0

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's numbers in; zeros, which padding is made of, add nothing."""
        # 0.0 + -0.0 is 0.0: whoever reads weights through a matrix product cannot tell the two zeros apart.
        flat = (tensor.detach() + 0.0).contiguous().flatten()
        bits = flat.view(_BITS[flat.element_size()])
        for chunk in torch.split(bits, CHUNK):
            wide = chunk.to(torch.int64)
            self._sum += int(wide.sum())
            self._squares += int(wide.square().sum())

    def __str__(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._sum % 2**64:016x}{self._squares % 2**64:016x}"


def weights_digest(tensors: Iterable[Tensor]) -> str:
    """The digest of some tensors as one."""
    digest = WeightsDigest()
    for tensor in tensors:
        digest.add(tensor)
    return str(digest)

"""A layout-independent digest that verifies that an engine has the policy's weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

CHUNK = 2**22
"""Elements per block of the sum: 32 MB as 64-bit integers."""

_BITS = {2: torch.int16, 4: torch.int32}


class WeightsDigest:
    """Sums of the bit patterns of all weights and of their squares, modulo 2^64.

    An engine fuses, transposes and pads the weights it loads, so names, shapes and positions cannot be compared. The sums do
    not depend on them, but change with every flipped bit. They do not detect permuted weights, but stale weights are never
    permutations of the new ones.
    """

    def __init__(self) -> None:
        self._sum = 0
        self._squares = 0

    def add(self, tensor: Tensor) -> None:
        """Add the elements of a tensor; zeros, and therefore padding, do not change the sums."""
        # 0.0 + -0.0 is 0.0: weights read through a matrix product do not keep the sign of zero.
        flat = (tensor.detach() + 0.0).contiguous().flatten()
        bits = flat.view(_BITS[flat.element_size()])
        for chunk in torch.split(bits, CHUNK):
            wide = chunk.to(torch.int64)
            self._sum += int(wide.sum())
            self._squares += int(wide.square().sum())

    def __str__(self) -> str:
        """Return the digest as 32 hexadecimal digits."""
        return f"{self._sum % 2**64:016x}{self._squares % 2**64:016x}"


def weights_digest(tensors: Iterable[Tensor]) -> str:
    """Compute the digest of all tensors together."""
    digest = WeightsDigest()
    for tensor in tensors:
        digest.add(tensor)
    return str(digest)

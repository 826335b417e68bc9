"""The soft overlong punishment: a penalty for responses near the length limit."""

from __future__ import annotations

from torch import Tensor


def soft_overlong_punishment(lengths: Tensor, limits: Tensor, buffer: float) -> Tensor:
    """Compute the length reward of DAPO, [B], between -1 and 0.

    With limit L and C = buffer * L:

    - 0 for |y| <= L - C
    - ((L - C) - |y|) / C for L - C < |y| <= L
    - -1 for |y| > L

    Source: arXiv 2503.14476, eq. 13, where C is 4,096 of 20,480 tokens: a buffer of 0.2.

    Args:
        lengths: |y|, length of each response including EOS, [B] (tokens).
        limits: L, maximum length of each response, [B] (tokens).
        buffer: C / L, in (0, 1].
    """
    cache = buffer * limits
    return ((limits - cache - lengths) / cache).clamp(-1.0, 0.0)

"""A penalty for responses that come close to the length limit."""

from __future__ import annotations

from torch import Tensor


def soft_overlong_punishment(lengths: Tensor, limits: Tensor, buffer: float) -> Tensor:
    """The length reward of DAPO, [B], between -1 and 0.

    With L the limit and C = buffer * L: 0 for |y| <= L - C, ((L - C) - |y|) / C for L - C < |y| <= L, -1 beyond.

    Source: arXiv 2503.14476, eq. 13, where C is 4,096 of 20,480 tokens: a buffer of 0.2.

    Args:
        lengths: |y|, tokens of each response with its EOS, [B].
        limits: L, the most tokens that each response may have, [B].
        buffer: C / L, in (0, 1].
    """
    cache = buffer * limits
    return ((limits - cache - lengths) / cache).clamp(-1.0, 0.0)

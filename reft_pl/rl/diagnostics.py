"""Figures that tell whether an update is healthy. None of them enters the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import masked_var


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(R - v) / Var(R) over all actions: 1 is perfect, 0 no better than a constant; never above 1.

    The result is floored at -1, so that one bad rollout does not flatten the plot. Where the returns do not vary it is 0.

    Args:
        values: v_t at the time of sampling, [B, T].
        returns: R_t, [B, T].
        mask: [B, T] bool.
    """
    total = masked_var(returns, mask)
    unexplained = masked_var(returns - values, mask)
    ratio = unexplained / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(total > 0, (1 - ratio).clamp(min=-1), torch.zeros_like(total))

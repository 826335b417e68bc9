"""Log-probability and entropy from logits, with an exact gradient that needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_LOGITS_CPU = 2**20
"""Size of a block on the CPU, in logits; 4 MB in float32, so that repeated passes over a block hit the cache."""


class LogprobAndEntropy(torch.autograd.Function):
    """Compute log softmax(z / temperature)[target] and the entropy of that softmax in float32, one block of rows at a time.

    Saves the logits in their own dtype and two numbers per row for the backward pass. Plain autograd would save several float32
    copies of the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Map [N, V] logits and [N] targets to [N] log-probabilities and [N] entropies (nats)."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        logprobs, entropy, lse = (torch.empty(len(logits), dtype=wide, device=logits.device) for _ in range(3))
        for rows in _blocks(logits):
            z = _scaled(logits[rows], wide, temperature)
            top = z.amax(-1, keepdim=True)
            z -= top
            chosen = z.gather(-1, targets[rows, None]).squeeze(-1)
            weights = z.exp()
            total = weights.sum(-1)
            log_total = total.log()
            logprobs[rows] = chosen - log_total
            entropy[rows] = log_total - (weights.mul_(z)).sum(-1) / total  # H = log sum e^z - sum p z
            lse[rows] = top.squeeze(-1) + log_total
        ctx.save_for_backward(logits, targets, lse, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, None, None]:
        """Apply d logp_y / dz_i = 1[i = y] - p_i and dH / dz_i = -p_i (log p_i + H), each divided by the temperature."""
        if grad_logprobs is None and grad_entropy is None:
            return None, None, None
        logits, targets, lse, entropy = ctx.saved_tensors
        grad = torch.empty_like(logits)
        for rows in _blocks(logits):
            block = _scaled(logits[rows], lse.dtype, ctx.temperature).sub_(lse[rows, None])  # log p
            upstream = torch.zeros_like(lse[rows, None]) if grad_logprobs is None else grad_logprobs[rows, None]
            if grad_entropy is None:
                block.exp_().mul_(-upstream)
            else:
                p = block.exp()
                block.add_(entropy[rows, None]).mul_(-grad_entropy[rows, None]).sub_(upstream).mul_(p)
            block.scatter_add_(-1, targets[rows, None], upstream)
            grad[rows] = block if ctx.temperature == 1 else block.div_(ctx.temperature)
        return grad, None, None


def _scaled(logits: Tensor, dtype: torch.dtype, temperature: float) -> Tensor:
    """Return a copy of the logits, divided by the temperature, that the caller may change in place."""
    scaled = logits.to(dtype, copy=True)
    return scaled if temperature == 1 else scaled.div_(temperature)


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Yield slices of rows: cache-sized blocks on the CPU, one block for all rows elsewhere."""
    rows = max(1, BLOCK_LOGITS_CPU // logits.shape[-1]) if logits.device.type == "cpu" else max(1, len(logits))
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)

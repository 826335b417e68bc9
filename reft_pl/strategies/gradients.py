"""One optimizer step under any strategy: when ranks exchange gradients, how long these are together, how they are dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor, nn

from reft_pl.strategies.zero import ZeRO


def one_update(strategy: Strategy, kept: Sequence[nn.Parameter]) -> AbstractContextManager[None]:
    """An optimizer step; ``kept`` are weights that ranks use different numbers of times in a pass."""
    return strategy.one_update(kept) if isinstance(strategy, ZeRO) else nullcontext()


def one_pass(module: LightningModule, micro_batch: Callable[[], Tensor], last: bool) -> Tensor:
    """Forward and backward of a micro-batch, whose loss is returned; after the last one ranks have each other's gradients."""
    strategy = module.trainer.strategy
    if isinstance(strategy, ZeRO):
        strategy.begin_pass(last)
        loss = micro_batch()
        # DeepSpeed drops gradients that are not finite; this is how it hears of such a loss.
        module.manual_backward(loss if torch.isfinite(loss) else loss * torch.nan)
        return loss
    loss = micro_batch()
    with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) and not last else nullcontext():
        module.manual_backward(loss)
    return loss


def clip(module: LightningModule, max_norm: float) -> Tensor:
    """The norm of all ranks' averaged gradient, before it is clipped to ``max_norm``; not finite where the gradient is not.

    DeepSpeed clips in its own step, by the same formula: no rank has the whole gradient.
    """
    strategy = module.trainer.strategy
    if isinstance(strategy, ZeRO):
        return strategy.gradient_norm()
    return torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], max_norm)


def drop(module: LightningModule) -> None:
    """Forget the gradients of this step; weights and optimizer stay as they are."""
    strategy = module.trainer.strategy
    if isinstance(strategy, ZeRO):
        strategy.drop_gradients()


def fix(groups: Sequence[dict[str, Any]]) -> None:
    """Keep some parameter groups out of the coming step, weight decay and counters included. Their gradients are 0."""
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = None

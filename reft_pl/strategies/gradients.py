"""Backward passes, gradient norm and clipping under any strategy."""

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
    """Wrap an optimizer step; ``kept`` are weights that ranks use different numbers of times in a pass."""
    return strategy.one_update(kept) if isinstance(strategy, ZeRO) else nullcontext()


def one_pass(module: LightningModule, micro_batch: Callable[[], Tensor], last: bool) -> Tensor:
    """Run forward and backward of a micro-batch and return its loss; ranks average gradients in the last one at the latest."""
    strategy = module.trainer.strategy
    if isinstance(strategy, ZeRO):
        strategy.begin_pass(last)
        loss = micro_batch()
        # DeepSpeed skips a step with non-finite gradients: turn a non-finite loss into such gradients.
        module.manual_backward(loss if torch.isfinite(loss) else loss * torch.nan)
        return loss
    loss = micro_batch()
    with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) and not last else nullcontext():
        module.manual_backward(loss)
    return loss


def clip(module: LightningModule, max_norm: float) -> Tensor:
    """Clip the averaged gradient to ``max_norm`` and return its norm before clipping; not finite if the gradient is not.

    DeepSpeed clips in its own step, by the same formula, because no rank holds the whole gradient.
    """
    strategy = module.trainer.strategy
    if isinstance(strategy, ZeRO):
        return strategy.gradient_norm()
    return torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], max_norm)


def drop(module: LightningModule) -> None:
    """Discard the gradients of this step without changing weights and optimizer."""
    strategy = module.trainer.strategy
    if isinstance(strategy, ZeRO):
        strategy.drop_gradients()


def fix(groups: Sequence[dict[str, Any]]) -> None:
    """Exclude parameter groups with gradient 0 from the next step, including weight decay and step counters."""
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = None

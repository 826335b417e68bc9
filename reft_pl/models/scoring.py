"""Compute log-probabilities, entropy and values of token sequences without materializing [B, T, V] logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reft_pl.models.micro_batches import micro_batches, take
from reft_pl.models.policy import Policy
from reft_pl.models.shared_prompts import SharedPrompts
from reft_pl.rl.categorical import LogprobAndEntropy
from reft_pl.types import Scores, TokenBatch

CHUNK_LOGITS = 2**26
"""Maximum logits (positions times vocabulary) in memory at once: 128 MB in bfloat16, 1,365 positions of a 49k vocabulary."""


def score(policy: Policy, batch: TokenBatch, *, temperature: float = 1.0, detach_values: bool = False) -> Scores:
    """Compute log-probabilities, entropy and values of a batch's actions; torch's grad mode decides about gradients.

    Rows with the same prompt share its computation, if the architecture allows it. The result depends neither on that, nor on
    the side of the padding, nor on the other rows of the batch.

    Args:
        policy: The policy. The caller sets train or eval mode (dropout).
        batch: [B, T] tokens on the policy's device.
        temperature: Divides the logits, as in the sampler.
        detach_values: Stop the values' gradient before the policy's trunk, so that it reaches only the value head.

    Returns:
        [B, T] float32 tensors, 0 outside the action mask.

    Raises:
        ValueError: No real token follows an action.
    """
    targets = _next_tokens(batch)
    actions = batch.action_mask.flatten().nonzero().squeeze(1)  # [N], row-major
    layout = SharedPrompts.of(batch) if policy.shares_prompts else None
    if layout is None:
        places = actions
        hidden = policy.hidden_states(batch.input_ids, batch.attention_mask).flatten(0, 1)
    else:
        places = layout.place.flatten()[actions]
        hidden = policy.shared_hidden_states(layout)
    at_actions = hidden.index_select(0, places)
    logprobs, entropy = token_logprobs(
        policy.logits,
        at_actions,
        targets.flatten().index_select(0, actions),
        chunk_rows=max(1, CHUNK_LOGITS // policy.vocab_size),
        temperature=temperature,
    )
    values = None
    if policy.value_head is not None:
        trunk = hidden.detach() if detach_values else hidden
        if layout is None:
            states = policy.value_hidden_states(batch.input_ids, batch.attention_mask, trunk)
        else:
            states = policy.shared_value_states(layout, trunk)
        values = policy.state_values(states.index_select(0, places))
        values = _spread(values, actions, batch)
    return Scores(_spread(logprobs, actions, batch), _spread(entropy, actions, batch), values)


@torch.no_grad()
def score_in_batches(policy: Policy, batch: TokenBatch, max_tokens: int, *, temperature: float = 1.0) -> Scores:
    """Run ``score`` without gradients in micro-batches of at most ``max_tokens`` tokens.

    ``batch`` may be on the CPU: micro-batches move to the policy's device, and the [B, T] results to the batch's.
    """
    logprobs = torch.zeros(batch.input_ids.shape, dtype=torch.float32, device=batch.input_ids.device)
    entropy = torch.zeros_like(logprobs)
    values = None if policy.value_head is None else torch.zeros_like(logprobs)
    for rows in micro_batches(batch, max_tokens, shared=policy.shares_prompts):
        micro = take(batch, rows, policy.device)
        scores = score(policy, micro, temperature=temperature)
        # A micro-batch has the same actions in the same order as its rows in the batch, whatever the padding.
        row, column = batch.action_mask[rows].nonzero(as_tuple=True)
        row = rows.to(row.device)[row]
        logprobs[row, column] = scores.logprobs[micro.action_mask].to(logprobs.device)
        entropy[row, column] = scores.entropy[micro.action_mask].to(logprobs.device)
        if values is not None and scores.values is not None:
            values[row, column] = scores.values[micro.action_mask].to(logprobs.device)
    return Scores(logprobs, entropy, values)


def token_logprobs(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, *, chunk_rows: int, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Compute each target token's log-probability and the entropy of its distribution, in nats.

    Beyond ``chunk_rows`` positions, logits are computed chunk by chunk and recomputed in the backward pass.

    Args:
        logits_of: The LM head, [n, D] to [n, V].
        hidden: [N, D] last hidden states.
        targets: [N] int64 token ids.
        chunk_rows: Maximum positions with logits in memory at once.
        temperature: Divides the logits.

    Returns:
        Log-probabilities and entropies, each [N] float32.

    Raises:
        ValueError: ``temperature`` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")

    def chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return LogprobAndEntropy.apply(logits_of(hidden), targets, temperature)  # type: ignore[no-any-return, no-untyped-call]

    if len(hidden) <= chunk_rows:
        return chunk(hidden, targets)
    parts = []
    for h, t in zip(torch.split(hidden, chunk_rows), torch.split(targets, chunk_rows), strict=True):
        recompute = torch.is_grad_enabled()
        parts.append(checkpoint(chunk, h, t, use_reentrant=False, preserve_rng_state=False) if recompute else chunk(h, t))
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _next_tokens(batch: TokenBatch) -> Tensor:
    """Return the token after each position, [B, T].

    Raises:
        ValueError: No real token follows an action.
    """
    followed = batch.attention_mask.bool().roll(-1, 1) & batch.attention_mask.bool()
    followed[:, -1] = False
    if bool((batch.action_mask & ~followed).any()):
        raise ValueError("the action mask is true at a position where no real token follows")
    return batch.input_ids.roll(-1, 1)


def _spread(at_actions: Tensor, actions: Tensor, batch: TokenBatch) -> Tensor:
    """Scatter [N] values to their positions in [B, T], 0 elsewhere."""
    zeros = at_actions.new_zeros(batch.input_ids.numel())
    return zeros.scatter(0, actions, at_actions).view_as(batch.input_ids)

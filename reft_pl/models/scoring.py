"""Log-probabilities, entropy and values of token sequences, without ever holding [B, T, V] logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reft_pl.models.micro_batches import split, take
from reft_pl.models.policy import Policy
from reft_pl.rl.categorical import LogprobAndEntropy
from reft_pl.types import Scores, TokenBatch

CHUNK_LOGITS = 2**26
"""Logits (positions times vocabulary) that exist at once: 128 MB in bfloat16, 1,365 positions of a 49k vocabulary."""


def score(policy: Policy, batch: TokenBatch, *, temperature: float = 1.0, detach_values: bool = False) -> Scores:
    """Score the actions of a batch, with gradient exactly if torch's grad mode is on.

    The result does not depend on the side of the padding nor on what else is in the batch.

    Args:
        policy: The policy. Train or eval mode (dropout) is the caller's decision.
        batch: [B, T] tokens on the policy's device.
        temperature: Logits are divided by it, as the sampler does.
        detach_values: Keep the gradient of the values out of the policy's trunk; it reaches the value head alone.

    Returns:
        [B, T] float32, 0 outside the action mask.

    Raises:
        ValueError: an action stands where no real token follows.
    """
    targets = _next_tokens(batch)
    hidden = policy.hidden_states(batch.input_ids, batch.attention_mask)
    actions = batch.action_mask.flatten().nonzero().squeeze(1)  # [N], row-major
    at_actions = hidden.flatten(0, 1).index_select(0, actions)
    logprobs, entropy = token_logprobs(
        policy.logits,
        at_actions,
        targets.flatten().index_select(0, actions),
        chunk_rows=max(1, CHUNK_LOGITS // policy.vocab_size),
        temperature=temperature,
    )
    values = None
    if policy.value_head is not None:
        states = policy.value_hidden_states(batch.input_ids, batch.attention_mask, hidden.detach() if detach_values else hidden)
        values = policy.state_values(states.flatten(0, 1).index_select(0, actions))
        values = _spread(values, actions, batch)
    return Scores(_spread(logprobs, actions, batch), _spread(entropy, actions, batch), values)


@torch.no_grad()
def score_in_batches(policy: Policy, batch: TokenBatch, max_tokens: int, *, temperature: float = 1.0) -> Scores:
    """``score`` without gradient, in length-sorted micro-batches of at most ``max_tokens`` tokens, padding included.

    ``batch`` may stay on the CPU: micro-batches go to the policy's device, and the results, [B, T], to the batch's.
    """
    logprobs = torch.zeros(batch.input_ids.shape, dtype=torch.float32, device=batch.input_ids.device)
    entropy = torch.zeros_like(logprobs)
    values = None if policy.value_head is None else torch.zeros_like(logprobs)
    for rows in split(batch, max_tokens):
        micro = take(batch, rows, policy.device)
        scores = score(policy, micro, temperature=temperature)
        # actions of the micro-batch and of its rows are the same in number and order, whatever the padding
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
    """Log-probability of each target token, and entropy of the distribution that it was chosen from, in nats.

    Beyond ``chunk_rows`` positions, logits are made chunk by chunk, and made again in the backward pass.

    Args:
        logits_of: The LM head, [n, D] to [n, V].
        hidden: [N, D] last hidden states.
        targets: [N] int64 token ids.
        chunk_rows: Most positions whose logits exist at once.
        temperature: Logits are divided by it.

    Returns:
        Two float32 tensors [N].
    """
    if temperature <= 0:
        raise ValueError(f"a distribution to score with needs a temperature above 0, got {temperature}")

    def chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return LogprobAndEntropy.apply(logits_of(hidden), targets, temperature)  # type: ignore[no-any-return, no-untyped-call]

    if len(hidden) <= chunk_rows:
        return chunk(hidden, targets)
    parts = []
    for h, t in zip(torch.split(hidden, chunk_rows), torch.split(targets, chunk_rows), strict=True):
        again = torch.is_grad_enabled()
        parts.append(checkpoint(chunk, h, t, use_reentrant=False, preserve_rng_state=False) if again else chunk(h, t))
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _next_tokens(batch: TokenBatch) -> Tensor:
    """The token that follows each position, [B, T]; checks that every action has one."""
    followed = batch.attention_mask.bool().roll(-1, 1) & batch.attention_mask.bool()
    followed[:, -1] = False
    if bool((batch.action_mask & ~followed).any()):
        raise ValueError("the action mask is true where no real token follows")
    return batch.input_ids.roll(-1, 1)


def _spread(at_actions: Tensor, actions: Tensor, batch: TokenBatch) -> Tensor:
    """[N] numbers back to their places in [B, T], 0 elsewhere."""
    zeros = at_actions.new_zeros(batch.input_ids.numel())
    return zeros.scatter(0, actions, at_actions).view_as(batch.input_ids)

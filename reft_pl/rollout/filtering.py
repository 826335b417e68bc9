"""What of a rollout is learned from: leaving out samples that say nothing, or nothing true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from reft_pl.models.micro_batches import take
from reft_pl.rl.groups import varied_groups
from reft_pl.types import Problem, Rollout, Sample, Status, StopReason, TokenBatch

_UNJUDGED = frozenset({Status.UNSUPPORTED, Status.WORKER_DIED})


def with_varied_groups(
    rollout: Rollout, size: int, max_resamples: int, again: Callable[[Sequence[Problem], int], Rollout]
) -> Rollout:
    """The groups whose outcomes are not all equal; the others are sampled anew, then left out (DAPO, arXiv 2503.14476, 3.2).

    Args:
        rollout: Groups of ``size`` samples, next to each other.
        size: Samples of a question.
        max_resamples: Times that a question is sampled anew.
        again: Samples and rewards groups for problems; told which attempt it is, from 1.

    Returns:
        A rollout of whole groups, which may be empty; everything else that was sampled stands in ``left_out``.
    """
    kept, left_out = [], []
    for attempt in range(1, max_resamples + 2):
        varied = varied_groups(rollout.outcome, size).repeat_interleave(size)
        kept.append(_rows(rollout, varied))
        equal = _rows(rollout, ~varied)
        left_out.append(equal)
        if not equal.samples or attempt > max_resamples:
            break
        rollout = again([sample.problem for sample in equal.samples[::size]], attempt)
    return replace(_joined(kept), left_out=_joined(left_out))


def without_truncated(rollout: Rollout) -> Rollout:
    """The rollout with no action in completions that the length limit cut off (DAPO, arXiv 2503.14476, section 3.4).

    Their outcomes still count in the baselines of others.
    """
    return _without_actions(rollout, lambda sample: sample.completion.stop is StopReason.LENGTH)


def without_unjudged(rollout: Rollout) -> Rollout:
    """The rollout with no action in completions whose program no interpreter could judge: their reward says nothing about them.

    Their outcomes still count in the baselines of others.
    """
    return _without_actions(rollout, lambda sample: sample.result.status in _UNJUDGED)


def _without_actions(rollout: Rollout, leave_out: Callable[[Sample], bool]) -> Rollout:
    kept = [not leave_out(sample) for sample in rollout.samples]
    if all(kept):
        return rollout
    tokens = rollout.tokens
    rows = torch.tensor(kept, dtype=torch.bool, device=tokens.action_mask.device).unsqueeze(-1)
    return replace(rollout, tokens=TokenBatch(tokens.input_ids, tokens.attention_mask, tokens.action_mask & rows))


def _rows(rollout: Rollout, which: torch.Tensor) -> Rollout:
    rows = which.nonzero().squeeze(1)
    samples = tuple(rollout.samples[row] for row in rows.tolist())
    return Rollout(samples, take(rollout.tokens, rows), rollout.outcome[rows])


def _joined(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts below each other, their tokens padded on the right to the longest."""
    length = max(rollout.tokens.input_ids.shape[1] for rollout in rollouts)

    def padded(tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))

    names = ("input_ids", "attention_mask", "action_mask")
    tokens = TokenBatch(*(torch.cat([padded(getattr(r.tokens, name)) for r in rollouts]) for name in names))
    outcome = torch.cat([rollout.outcome for rollout in rollouts])
    return Rollout(tuple(sample for rollout in rollouts for sample in rollout.samples), tokens, outcome)

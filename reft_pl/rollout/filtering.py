"""Filter a rollout: drop groups with equal outcomes, and mask truncated or unjudged samples."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from reft_pl.models.micro_batches import take
from reft_pl.rl.groups import varied_groups
from reft_pl.rl.overlong import soft_overlong_punishment
from reft_pl.rollout.minibatches import places_over_ranks
from reft_pl.rollout.seeds import counter_seed
from reft_pl.types import Problem, Rollout, Sample, Status, StopReason, TokenBatch

_UNJUDGED = frozenset({Status.UNSUPPORTED, Status.WORKER_DIED})


def with_varied_groups(
    rollout: Rollout,
    size: int,
    refill: Callable[[Sequence[Problem], int], Sequence[Problem] | None],
    sample: Callable[[Sequence[Problem], int], Rollout],
) -> Rollout:
    """Keep the groups with varied outcomes, and replace the others by groups of new questions.

    Only outcomes of judged samples count.

    Args:
        rollout: Groups of ``size`` adjacent samples.
        size: Samples per question.
        refill: Returns new questions for excluded ones (possibly none on this rank), or None to stop. Its second argument
            is the number of the attempt, from 1. It is called equally often on every rank.
        sample: Samples groups for questions and computes their rewards; its second argument is the number of the attempt.

    Returns:
        A rollout of whole groups, possibly empty; ``left_out`` holds all other samples.

    Source: dynamic sampling of DAPO, arXiv 2503.14476, section 3.2.
    """
    kept, left_out = [], []
    for attempt in count(1):
        varied = varied_groups(rollout.outcome, size, judged(rollout)).repeat_interleave(size)
        kept.append(_rows(rollout, varied))
        equal = _rows(rollout, ~varied)
        left_out.append(equal)
        others = refill([sample.problem for sample in equal.samples[::size]], attempt)
        if others is None:
            break
        rollout = sample(others, attempt) if others else _rows(rollout, torch.zeros_like(varied))
    return replace(_joined(kept), left_out=_joined(left_out))


def with_overlong_punishment(rollout: Rollout, buffer: float, max_tokens: int) -> Rollout:
    """Add the soft overlong punishment to the outcomes (DAPO, arXiv 2503.14476, eq. 13).

    Args:
        rollout: Filtered groups; filter before the punishment, so that outcomes vary by accuracy and not by length.
        buffer: Share of a response's limit over which the punishment grows; 0 disables it.
        max_tokens: Limit for prompt and response together, in tokens; the response limit is this minus the prompt.
    """
    if not buffer or not rollout.samples:
        return rollout
    lengths = rollout.outcome.new_tensor([len(sample.completion.token_ids) for sample in rollout.samples])
    prompts = rollout.tokens.attention_mask.sum(-1) - lengths
    return replace(rollout, outcome=rollout.outcome + soft_overlong_punishment(lengths, max_tokens - prompts, buffer))


def without_truncated(rollout: Rollout) -> Rollout:
    """Mask all actions of completions truncated at the length limit (DAPO, arXiv 2503.14476, section 3.4).

    Their outcomes still count in the baselines of other samples.
    """
    return _without_actions(rollout, lambda sample: sample.completion.stop is StopReason.LENGTH)


def without_unjudged(rollout: Rollout) -> Rollout:
    """Mask all actions of completions that nothing judged: an interpreter could not, or every reward returned None.

    Estimators exclude their outcomes from baselines (``judged``).
    """
    return _without_actions(rollout, _is_unjudged)


def judged(rollout: Rollout) -> Tensor:
    """Return which samples both the execution and a reward judged, [B] bool, on the device of the outcomes."""
    return torch.tensor([not _is_unjudged(s) for s in rollout.samples], dtype=torch.bool, device=rollout.outcome.device)


def _is_unjudged(sample: Sample) -> bool:
    return sample.result.status in _UNJUDGED or not sample.rewarded


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
    """Concatenate rollouts; tokens are padded on the right to the longest."""
    length = max(rollout.tokens.input_ids.shape[1] for rollout in rollouts)

    def padded(tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))

    names = ("input_ids", "attention_mask", "action_mask")
    tokens = TokenBatch(*(torch.cat([padded(getattr(r.tokens, name)) for r in rollouts]) for name in names))
    outcome = torch.cat([rollout.outcome for rollout in rollouts])
    return Rollout(tuple(sample for rollout in rollouts for sample in rollout.samples), tokens, outcome)


class GlobalBatch:
    """The questions of one rollout over all ranks, with new questions in place of excluded ones.

    New questions come from the training set and are not in the batch. Their order depends only on the run seed and the step,
    so a rollout has the same questions on any number of ranks.

    Args:
        problems: Questions of this rank.
        places: Their positions in the global batch.
        gather: Returns the arguments of all ranks, in rank order.
        pool: All training questions, the same on every rank.
        seed: Run seed.
        step: Number of training batches before this one.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        places: Sequence[int],
        gather: Callable[[Any], list[Any]],
        pool: Sequence[Problem],
        seed: int,
        step: int,
    ) -> None:
        self.place_of = dict(zip((problem.id for problem in problems), places, strict=True))
        self._gather = gather
        self._pool = pool
        self._seed = counter_seed(seed, "refill", step, "", 0)
        self._others: list[Problem] | None = None

    def refill(self, problems: Sequence[Problem]) -> list[Problem] | None:
        """Return new questions in place of these, as long as the training set has unused ones.

        All ranks must call it together. A rank may get an empty list; all get None if there is nothing to replace or no
        unused question.
        """
        mine = [self.place_of[problem.id] for problem in problems]
        free = sorted(place for places in self._gather(mine) for place in places)
        if self._others is None:  # on first use, because it iterates over all training questions
            batch = {name for names in self._gather(list(self.place_of)) for name in names}
            self._others = [problem for problem in self._pool if problem.id not in batch]
            random.Random(self._seed).shuffle(self._others)
        taken, self._others = dict(zip(free, self._others, strict=False)), self._others[len(free) :]
        if not taken:
            return None
        others = {place: taken[place] for place in mine if place in taken}
        self.place_of |= {problem.id: place for place, problem in others.items()}
        return list(others.values())

    def rows(self, rollout: Rollout, size: int) -> Tensor:
        """Return the indices of this rank's samples in the rollout of all ranks, [B] int64; all ranks must call it together.

        Args:
            rollout: This rank's samples, in whole groups, of questions in the batch or of new ones.
            size: Samples per question.
        """
        mine = [self.place_of[sample.problem.id] for sample in rollout.samples[::size]]
        return places_over_ranks(mine, self._gather(mine), size)

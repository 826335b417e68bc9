"""What of a rollout is learned from."""

import pytest
import torch

from reft_pl.rollout.filtering import without_truncated, without_unjudged
from reft_pl.types import Completion, ExecutionResult, Problem, Rollout, Sample, Status, StopReason, TokenBatch

STATUSES = tuple(Status)


@pytest.fixture
def rollout() -> Rollout:
    """One sample per status, the first of them cut off by the length limit; three actions each."""
    samples = tuple(
        Sample(
            Problem("q", "?", 1.0),
            Completion("q", 0, (1, 2, 3), (0.0,) * 3, StopReason.EOS if row else StopReason.LENGTH),
            "text",
            ExecutionResult(status, 1.0 if status is Status.OK else None),
        )
        for row, status in enumerate(STATUSES)
    )
    mask = torch.tensor([[True, True, True, False]]).repeat(len(samples), 1)
    tokens = TokenBatch(torch.ones_like(mask, dtype=torch.int64), torch.ones_like(mask), mask)
    return Rollout(samples, tokens, torch.zeros(len(samples)))


def learned(rollout: Rollout) -> list[bool]:
    return [bool(row) for row in rollout.tokens.action_mask.any(dim=1)]


def test_what_no_interpreter_could_judge_is_not_learned_from(rollout: Rollout) -> None:
    expected = [status not in (Status.UNSUPPORTED, Status.WORKER_DIED) for status in STATUSES]
    assert learned(without_unjudged(rollout)) == expected
    assert without_unjudged(rollout).samples == rollout.samples


def test_truncated_completions_are_not_learned_from(rollout: Rollout) -> None:
    assert learned(without_truncated(rollout)) == [False] + [True] * (len(STATUSES) - 1)

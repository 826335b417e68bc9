"""Advantage estimators: by hand, what they have in common, and what a rank or a group must not change."""

import pytest
import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rl.estimators import GAE, GRPO, RLOO, AdvantageEstimator, Experience, Reinforce
from reft_pl.rl.whitening import whiten

NAN = float("nan")
F64 = torch.float64
MASK = torch.tensor([[False, True, True], [False, True, False], [True, True, False], [True, True, True]])
OUTCOME = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=F64)
"""Two questions with two samples each; only the first is ever solved."""


def experience(outcome: Tensor = OUTCOME, kl: float = 0.0, group_size: int = 2) -> Experience:
    """No penalty but at the first action of the last row; nothing but NaN outside the mask."""
    kl_rewards = torch.where(MASK, 0.0, NAN).to(F64)
    kl_rewards[3, 0] = kl
    values = torch.where(MASK, 0.25, NAN).to(F64)
    return Experience(outcome, kl_rewards, values, MASK, group_size)


def rows(advantages: Tensor) -> list[float]:
    """The advantage of each row, which all of its actions share."""
    assert (advantages[~MASK] == 0).all()
    per_row = [row[mask] for row, mask in zip(advantages, MASK, strict=True)]
    assert all((row == row[0]).all() for row in per_row)
    return [float(row[0]) for row in per_row]


def test_rewards_hold_the_outcome_at_the_last_action_and_the_penalty_where_it_is() -> None:
    assert experience(kl=-0.5).rewards.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0], [-0.5, 0, 0]]
    assert experience(kl=-0.5).total_kl_rewards.tolist() == [0, 0, 0, -0.5]


def test_gae_is_the_default_of_the_paper() -> None:
    """With gamma 1, A_last = 1 - 0.25 and one action earlier (0.25 - 0.25) + 0.95 * 0.75."""
    advantages, returns = GAE(whiten=False).estimate(experience())
    torch.testing.assert_close(advantages[0], torch.tensor([0, 0.7125, 0.75], dtype=F64))
    torch.testing.assert_close(returns[0], torch.tensor([0, 0.9625, 1.0], dtype=F64))
    whitened, same = GAE().estimate(experience())
    torch.testing.assert_close(whitened, whiten(advantages, MASK))
    assert torch.equal(same, returns)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (GRPO(), [0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4), 0, 0]),
        (GRPO(normalise=False), [0.5, -0.5, 0, 0]),
        (RLOO(), [1, -1, 0, 0]),
        (Reinforce(), [0.75, -0.25, -0.25, -0.25]),
    ],
)
def test_by_hand(estimator: AdvantageEstimator, expected: list[float]) -> None:
    advantages, returns = estimator.estimate(experience())
    assert rows(advantages) == pytest.approx(expected)
    assert returns is None
    assert not estimator.uses_values


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [(GRPO(), [0.1, -0.1]), (GRPO(normalise=False), [0.1, -0.1]), (RLOO(), [0.2, -0.2])],
)
def test_where_all_outcomes_are_equal_a_penalty_keeps_its_own_size(
    estimator: AdvantageEstimator, expected: list[float]
) -> None:
    """Divided by the spread of equal outcomes it would be a thousand times as large."""
    advantages, _ = estimator.estimate(experience(kl=-0.2))
    assert rows(advantages)[2:] == pytest.approx(expected)


def test_reinforce_counts_samples_that_are_masked_out_in_its_baseline() -> None:
    """The last two rows have no action that is learned from: the mean of outcomes is 1/4 all the same."""
    whole = experience()
    masked = MASK & torch.tensor([[True], [True], [False], [False]])
    advantages, _ = Reinforce().estimate(Experience(whole.outcome, whole.kl_rewards, whole.values, masked, 2))
    assert advantages[0, 1] == 0.75
    assert advantages[1, 1] == -0.25
    assert (advantages[2:] == 0).all()


def test_reinforce_whitens_over_actions_by_setting() -> None:
    plain, _ = Reinforce().estimate(experience())
    whitened, _ = Reinforce(whiten=True).estimate(experience())
    torch.testing.assert_close(whitened, whiten(plain, MASK))


@pytest.mark.parametrize("estimator", [GAE(), GRPO(), RLOO(), Reinforce(), Reinforce(whiten=True)])
def test_ranks_with_a_share_each_find_what_one_finds(estimator: AdvantageEstimator) -> None:
    """Two ranks played in turn: each reduction adds what the other rank puts in at the same point of its own pass."""
    whole = experience(kl=-0.2)
    expected, _ = estimator.estimate(whole)
    halves = [Experience(whole.outcome[r], whole.kl_rewards[r], whole.values[r], MASK[r], 2) for r in (slice(2), slice(2, 4))]
    totals: list[Tensor] = []

    def run(half: Experience, known: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        given: list[Tensor] = []

        def all_reduce(x: Tensor) -> Tensor:
            given.append(x.clone())
            return known[len(given) - 1] if len(given) <= len(known) else x

        e = Experience(half.outcome, half.kl_rewards, half.values, half.mask, half.group_size, all_reduce)
        return estimator.estimate(e)[0], given

    while True:
        (first, given), (second, other) = (run(half, totals) for half in halves)
        assert len(given) == len(other), "both ranks reduce equally often"
        if len(totals) == len(given):
            break
        totals.append(given[len(totals)] + other[len(totals)])
    torch.testing.assert_close(torch.cat([first, second]), expected)


@pytest.mark.parametrize("estimator", [GAE(), GRPO(), RLOO(), Reinforce()])
def test_a_rollout_of_which_nothing_is_left(estimator: AdvantageEstimator) -> None:
    nothing = torch.zeros(0, 3)
    advantages, _ = estimator.estimate(Experience(torch.zeros(0), nothing, nothing, nothing.bool(), 2))
    assert advantages.shape == (0, 3)


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match=r"gamma is 1 and lam 1\.5"):
        GAE(gamma=1, lam=1.5)

"""Advantage estimators: hand-computed cases, shared properties, and invariance to ranks and groups."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rl.advantages import generalized_advantages, rewards_to_go
from reft_pl.rl.estimators import GAE, GRPO, RLOO, AdvantageEstimator, Experience, MaxRL, Reinforce
from reft_pl.rl.statistics import whiten

NAN = float("nan")
F64 = torch.float64
MASK = torch.tensor([[False, True, True], [False, True, False], [True, True, False], [True, True, True]])
OUTCOME = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=F64)
"""Two questions with two samples each; only the first has a correct sample."""


def experience(outcome: Tensor = OUTCOME, kl: float = 0.0, group_size: int = 2) -> Experience:
    """A penalty only at the first action of the last row; NaN everywhere outside the mask."""
    kl_rewards = torch.where(MASK, 0.0, NAN).to(F64)
    kl_rewards[3, 0] = kl
    values = torch.where(MASK, 0.25, NAN).to(F64)
    return Experience(outcome, kl_rewards, values, MASK, group_size)


def rows(advantages: Tensor) -> list[float]:
    """Return the advantage of each row, which all of its actions share."""
    assert (advantages[~MASK] == 0).all()
    per_row = [row[mask] for row, mask in zip(advantages, MASK, strict=True)]
    assert all((row == row[0]).all() for row in per_row)
    return [float(row[0]) for row in per_row]


def test_rewards_are_the_outcome_at_the_last_action_plus_penalties() -> None:
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
        (MaxRL(), [1, -1, 0, 0]),
        (Reinforce(baseline="group"), [0.5, -0.5, 0, 0]),
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
    [(GRPO(), [0.1, -0.1]), (GRPO(normalise=False), [0.1, -0.1]), (RLOO(), [0.2, -0.2]), (MaxRL(), [0.1, -0.1])],
)
def test_with_equal_outcomes_a_penalty_is_not_rescaled(estimator: AdvantageEstimator, expected: list[float]) -> None:
    """Divided by the standard deviation of equal outcomes, it would be a thousand times larger."""
    advantages, _ = estimator.estimate(experience(kl=-0.2))
    assert rows(advantages)[2:] == pytest.approx(expected)


def test_reinforce_counts_samples_that_are_masked_out_in_its_baseline() -> None:
    """The last two rows have no actions, but their outcomes still count: the mean is 1/4."""
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


@pytest.mark.parametrize("whitened", [False, True])
def test_an_action_is_charged_for_its_own_and_later_kl(whitened: bool) -> None:
    """With a penalty at the second of three actions, the first two are charged and the third is not."""
    whole = experience()
    kl_rewards = whole.kl_rewards.clone()
    kl_rewards[3, 1] = -0.5
    advantages, _ = Reinforce(whiten=whitened).estimate(replace(whole, kl_rewards=kl_rewards))
    first, second, third = advantages[3].tolist()
    assert first == pytest.approx(second)
    spread = (
        0.5 if not whitened else 0.5 / rewards_to_go(replace(whole, kl_rewards=kl_rewards).rewards, MASK)[MASK].std().item()
    )
    assert third - second == pytest.approx(spread)


ESTIMATORS: list[AdvantageEstimator] = [
    GRPO(),
    GRPO(normalise=False),
    RLOO(),
    MaxRL(),
    Reinforce(),
    Reinforce(whiten=True),
    Reinforce(True, "group"),
]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("unjudged_outcome", [0.0, 0.1, 50.0, -3.0, NAN])
def test_unjudged_samples_enter_no_baseline(estimator: AdvantageEstimator, unjudged_outcome: float) -> None:
    """A third, unjudged sample per question: the others get the same advantages as in a group of two."""
    whole = experience(kl=-0.2)
    expected, _ = estimator.estimate(whole)
    rows_of = torch.tensor([0, 1, 0, 2, 3, 2])
    judged = torch.tensor([True, True, False, True, True, False])
    outcome = torch.where(judged, whole.outcome[rows_of], unjudged_outcome)
    mask = MASK[rows_of] & judged.unsqueeze(-1)
    larger = Experience(outcome, whole.kl_rewards[rows_of], whole.values[rows_of], mask, 3, judged=judged)
    advantages, _ = estimator.estimate(larger)
    torch.testing.assert_close(advantages[judged], expected)
    assert (advantages[~judged] == 0).all()


@pytest.mark.parametrize("estimator", [GRPO(), GRPO(normalise=False), RLOO(), MaxRL()])
@pytest.mark.parametrize("judged", [[False, False], [True, False]])
def test_a_group_with_too_few_judged_samples_has_zero_advantages(estimator: AdvantageEstimator, judged: list[bool]) -> None:
    mask = MASK & torch.tensor([*judged, True, True]).unsqueeze(-1)
    advantages, _ = estimator.estimate(replace(experience(), mask=mask, judged=torch.tensor([*judged, True, True])))
    assert (advantages[:2] == 0).all()


@pytest.mark.parametrize("outcome", [[0.0, 0.0], [-1.0, 0.5], [-1.0, 1.0]])
def test_maxrl_gives_zero_to_groups_without_a_positive_mean(outcome: list[float]) -> None:
    advantages, _ = MaxRL().estimate(experience(torch.tensor([*outcome, 1.0, 1.0], dtype=F64)))
    assert (advantages == 0).all()


def test_the_targets_of_a_value_warm_up_are_monte_carlo_returns() -> None:
    """lambda 1 (arXiv 2503.01491, section 4.1), independent of the values."""
    whole = experience(kl=-0.5)
    targets = GAE(gamma=0.9, lam=0.5).warmup_targets(whole)
    no_values = torch.zeros_like(whole.values)
    torch.testing.assert_close(targets, generalized_advantages(whole.rewards, no_values, MASK, 0.9, 1.0)[0])
    assert targets[3].tolist() == [-0.5, 0, 0]


@pytest.mark.parametrize("estimator", [GAE(), GRPO(), RLOO(), MaxRL(), Reinforce(), Reinforce(True), Reinforce(True, "group")])
def test_several_ranks_compute_what_one_does(estimator: AdvantageEstimator) -> None:
    """Two simulated ranks: each reduction adds the contribution that the other rank made to the same reduction."""
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


@pytest.mark.parametrize("estimator", [GAE(), GRPO(), RLOO(), MaxRL(), Reinforce(), Reinforce(True, "group")])
def test_an_empty_rollout(estimator: AdvantageEstimator) -> None:
    nothing = torch.zeros(0, 3)
    advantages, _ = estimator.estimate(Experience(torch.zeros(0), nothing, nothing, nothing.bool(), 2))
    assert advantages.shape == (0, 3)


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match=r"gamma and lam must be between 0 and 1, got 1 and 1\.5"):
        GAE(gamma=1, lam=1.5)

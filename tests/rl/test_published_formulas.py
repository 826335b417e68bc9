"""Every estimator, loss and average against its published formula in plain Python, including gradients, on ragged masks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from reft_pl.rl.aggregation import Aggregation, AggregationKind
from reft_pl.rl.estimators import GAE, GRPO, RLOO, AdvantageEstimator, Distillation, Experience, MaxRL, Reinforce
from reft_pl.rl.kl import KLPenalty
from reft_pl.rl.losses import clipped_value_loss
from reft_pl.rl.overlong import soft_overlong_punishment
from reft_pl.rl.policy_losses import PolicyLoss, PPOClip, SequenceClip
from tests.rl import published
from tests.rl.published import Rows

F64 = torch.float64
SIZE, MAX_TOKENS, BETA = 4, 11, 0.3
LENGTHS = (3, 5, 1, 4, 2, 6, 0, 5)
"""Number of actions of the rows of two questions; the row without actions was masked out."""
JUDGED = (True, True, True, True, True, True, True, False)


@dataclass
class Batch:
    """Ragged rows as plain lists; ``padded`` puts them into a tensor with NaN everywhere else."""

    outcome: list[float]
    new: Rows
    old: Rows
    ref: Rows
    values: Rows
    judged: Sequence[bool] = JUDGED

    @property
    def mask(self) -> Tensor:
        """The actions of each row start at another position, as after prompts of different lengths."""
        mask = torch.zeros(len(LENGTHS), 10, dtype=torch.bool)
        for row, (first, n) in enumerate(zip(self.firsts, self.lengths, strict=True)):
            mask[row, first : first + n] = True
        return mask

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.new]

    @property
    def firsts(self) -> list[int]:
        return [row % 4 for row in range(len(self.new))]

    def padded(self, rows: Rows) -> Tensor:
        tensor = torch.full(self.mask.shape, torch.nan, dtype=F64)
        tensor[self.mask] = torch.tensor([x for row in rows for x in row], dtype=F64)
        return tensor

    def rows(self, tensor: Tensor) -> Rows:
        """Convert back to lists; everything outside the mask must be 0."""
        assert (tensor[~self.mask] == 0).all()
        return [row[actions].tolist() for row, actions in zip(tensor, self.mask, strict=True)]

    def experience(self, kl_rewards: Rows) -> Experience:
        outcome, judged = torch.tensor(self.outcome, dtype=F64), torch.tensor(self.judged)
        return Experience(outcome, self.padded(kl_rewards), self.padded(self.values), self.mask, SIZE, judged=judged)

    @property
    def penalties(self) -> Rows:
        """beta KL_t, k1."""
        return [[BETA * x for x in row] for row in published.kl("k1", self.old, self.ref)]


@pytest.fixture(params=range(3))
def batch(request: pytest.FixtureRequest) -> Batch:
    """Random numbers; the unjudged row has no action, and its outcome would be visible in any baseline."""
    generator = torch.Generator().manual_seed(request.param)
    lengths = [n if judged else 0 for n, judged in zip(LENGTHS, JUDGED, strict=True)]

    def draw(scale: float) -> Rows:
        return [(scale * torch.randn(n, generator=generator, dtype=F64)).tolist() for n in lengths]

    old = [[x - 2.0 for x in row] for row in draw(0.5)]
    new, ref = ([[x + d for x, d in zip(*rows, strict=True)] for rows in zip(old, draw(0.3), strict=True)] for _ in range(2))
    outcome = [1.0, 0.0, 0.0, 1.0, *torch.randint(0, 2, (3,), generator=generator).double().tolist(), 50.0]
    return Batch(outcome, new, old, ref, draw(0.4))


def per_action(advantages: Sequence[float], lengths: Sequence[int]) -> Rows:
    return [[a] * n for a, n in zip(advantages, lengths, strict=True)]


Advantages = Callable[[Batch], Rows]


def whitened_gae(batch: Batch) -> Rows:
    rewards = [[-x for x in row] for row in batch.penalties]
    for row, r in zip(rewards, batch.outcome, strict=True):
        if row:
            row[-1] += r
    raw = published.gae(rewards, batch.values, 0.99, 0.9)
    every = [a for row in raw for a in row]
    variance = sum((a - published.mean(every)) ** 2 for a in every) / (len(every) - 1)
    return [[(a - published.mean(every)) / (variance + 1e-8) ** 0.5 for a in row] for row in raw]


def totals(batch: Batch) -> list[float]:
    return [r - sum(kl) for r, kl in zip(batch.outcome, batch.penalties, strict=True)]


def group_baseline(batch: Batch) -> Rows:
    centred = published.dr_grpo(batch.outcome, SIZE, batch.judged)
    return published.reinforce_plus_plus(centred, batch.penalties)


def reward_to_go(batch: Batch) -> Rows:
    baseline = published.mean([total for total, judged in zip(totals(batch), batch.judged, strict=True) if judged])
    pairs = zip(batch.outcome, batch.penalties, strict=True)
    return [[r - baseline - sum(kl[t:]) for t in range(len(kl))] for r, kl in pairs]


def distilled(batch: Batch) -> Rows:
    baseline = published.mean([r for r, judged in zip(batch.outcome, batch.judged, strict=True) if judged])
    rewards = [0.5 * (r - baseline) * judged for r, judged in zip(batch.outcome, batch.judged, strict=True)]
    return [[reward - x for x in kl] for reward, kl in zip(rewards, batch.penalties, strict=True)]


def of_outcomes(formula: Callable[[Sequence[float], int, Sequence[bool]], list[float]]) -> Advantages:
    """For estimators with the KL in the loss, or without KL, in their papers."""
    return lambda batch: per_action(formula(batch.outcome, SIZE, batch.judged), batch.lengths)


ALGORITHMS: dict[str, tuple[AdvantageEstimator, float, Advantages, PolicyLoss, AggregationKind]] = {
    "ReFT": (GAE(0.99, 0.9), BETA, whitened_gae, PPOClip(), "sequence"),
    "GRPO": (GRPO(), 0.0, of_outcomes(published.grpo), PPOClip(), "sequence"),
    "Dr. GRPO": (GRPO(normalise=False), 0.0, of_outcomes(published.dr_grpo), PPOClip(), "constant"),
    "DAPO": (GRPO(), 0.0, of_outcomes(published.grpo), PPOClip(clip_higher=0.28), "token"),
    "GSPO": (GRPO(), 0.0, of_outcomes(published.grpo), SequenceClip(0.05, 0.07), "sequence"),
    "RLOO": (
        RLOO(),
        BETA,
        lambda b: per_action(published.rloo(totals(b), SIZE, b.judged), b.lengths),
        PPOClip(dual_clip=1.3),
        "sequence_sum",
    ),
    "MaxRL": (MaxRL(), 0.0, of_outcomes(published.maxrl), PPOClip(), "sequence_sum"),
    "REINFORCE": (Reinforce(), BETA, reward_to_go, PPOClip(), "sequence_sum"),
    "REINFORCE++": (
        Reinforce(whiten=True),
        BETA,
        lambda b: published.reinforce_plus_plus(b.outcome, b.penalties),
        PPOClip(),
        "token",
    ),
    "distillation": (Distillation(reward_weight=0.5), BETA, distilled, PPOClip(), "token"),
    "REINFORCE++ with baseline": (Reinforce(whiten=True, baseline="group"), BETA, group_baseline, PPOClip(), "token"),
}
AVERAGES: dict[AggregationKind, Callable[[Rows], float]] = {
    "sequence": published.sequence,
    "token": published.token,
    "sequence_sum": published.sequence_sum,
    "constant": published.constant(MAX_TOKENS),
}


def deviation(ours: Rows, theirs: Rows) -> float:
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    return max((abs(a - b) for rows in zip(ours, theirs, strict=True) for a, b in zip(*rows, strict=True)), default=0.0)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_advantages_loss_and_gradient(name: str, batch: Batch) -> None:
    estimator, beta, formula, policy_loss, kind = ALGORITHMS[name]
    kl_rewards = [[-x * bool(beta) for x in row] for row in batch.penalties]
    advantages, _ = estimator.estimate(batch.experience(kl_rewards))
    expected = formula(batch)
    assert max(abs(a) for row in expected for a in row) > 0.1, "there is something to compare"
    assert deviation(batch.rows(advantages), expected) < 1e-9

    def objective(new: Rows) -> float:
        if isinstance(policy_loss, SequenceClip):
            losses = published.gspo_losses(new, batch.old, expected, policy_loss.low, policy_loss.high)
        else:
            assert isinstance(policy_loss, PPOClip)
            bounds = policy_loss.low, policy_loss.high, policy_loss.dual_clip
            losses = published.token_losses(new, batch.old, expected, *bounds)
        return AVERAGES[kind](losses)

    new, mask = batch.padded(batch.new).requires_grad_(), batch.mask
    ratio = policy_loss.ratio(new, batch.padded(batch.old), mask)
    average = Aggregation(kind, mask, max_tokens=MAX_TOKENS)
    loss = average(policy_loss.per_action(ratio, advantages, mask), mask)
    loss.backward()
    assert new.grad is not None
    assert bool(policy_loss.outside(ratio).any()), "the clip is at work"
    gradient, numerical = batch.rows(new.grad), published.finite_differences(objective, batch.new)
    assert max(abs(g) for row in numerical for g in row) > 1e-3, "there is something to compare"
    assert abs(loss.item() - objective(batch.new)) < 1e-9
    assert deviation(gradient, numerical) < 1e-7


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_estimator_is_averaged_as_in_its_source_by_default(name: str) -> None:
    estimator, _, _, _, kind = ALGORITHMS[name]
    assert (estimator.aggregation == kind) is (name != "DAPO"), "DAPO has GRPO's advantages and a different average"


def test_rloos_gradient_of_a_response_does_not_depend_on_its_length(batch: Batch) -> None:
    """At ratio 1 the gradient of every token's log-probability is -A / N (arXiv 2402.14740, eq. 8)."""
    advantages, _ = RLOO().estimate(batch.experience([[0.0] * n for n in batch.lengths]))
    new = batch.padded(batch.old).requires_grad_()
    loss = PPOClip()
    per_action_loss = loss.per_action(loss.ratio(new, batch.padded(batch.old), batch.mask), advantages, batch.mask)
    Aggregation(RLOO.aggregation, batch.mask)(per_action_loss, batch.mask).backward()
    expected = published.rloo(batch.outcome, SIZE, batch.judged)
    n = sum(length > 0 for length in batch.lengths)
    assert new.grad is not None
    assert deviation(batch.rows(new.grad), per_action([-a / n for a in expected], batch.lengths)) < 1e-12


def test_maxrl_is_unbiased_for_the_truncated_maximum_likelihood() -> None:
    """With N samples, E[sum_i A_i dlog p(y_i)] / N = sum_{k=1}^{N} 1/k d pass@k plus a baseline term (theorem 1).

    One parameter, p = sigmoid(z): dlog p(y) / dz is 1 - p for a correct sample and -p for a wrong one. All outcomes of N
    samples are enumerated. The gradient without a baseline is (1 - (1 - p)^N) dlog p; the baseline subtracts the mean gradient
    of groups that have a correct answer, which is that of all groups minus (1 - p)^N times -p.
    """
    n, p = 4, 0.3
    total = 0.0
    for group in itertools.product((0.0, 1.0), repeat=n):
        chance = p ** sum(group) * (1 - p) ** (n - sum(group))
        advantages, _ = MaxRL().estimate(
            Experience(torch.tensor(group, dtype=F64), *torch.zeros(2, n, 1, dtype=F64), torch.ones(n, 1, dtype=torch.bool), n)
        )
        scores = [(1 - p) if right else -p for right in group]
        total += chance * sum(a * s for a, s in zip(advantages[:, 0].tolist(), scores, strict=True)) / n
    without_baseline = (1 - (1 - p) ** n) * (1 - p)
    assert total == pytest.approx(without_baseline - p * (1 - p) ** n)


def test_values(batch: Batch) -> None:
    new, old, returns = batch.new, batch.old, batch.ref
    tensor = batch.padded(new).requires_grad_()
    loss = clipped_value_loss(tensor, batch.padded(old), batch.padded(returns), batch.mask, 0.2)
    expected = published.value_losses(new, old, returns, 0.2)
    assert deviation(batch.rows(loss), expected) < 1e-12
    loss.sum().backward()
    assert tensor.grad is not None
    numerical = published.finite_differences(lambda v: sum(map(sum, published.value_losses(v, old, returns, 0.2))), new)
    assert deviation(batch.rows(tensor.grad), numerical) < 1e-7


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl(kind: str, batch: Batch) -> None:
    tensor = batch.padded(batch.new).requires_grad_()
    penalty = KLPenalty(estimator=kind)  # type: ignore[arg-type]
    estimate = penalty.estimate(tensor, batch.padded(batch.ref), batch.mask)
    assert deviation(batch.rows(estimate), published.kl(kind, batch.new, batch.ref)) < 1e-12
    estimate.sum().backward()
    assert tensor.grad is not None
    numerical = published.finite_differences(lambda new: sum(map(sum, published.kl(kind, new, batch.ref))), batch.new)
    assert deviation(batch.rows(tensor.grad), numerical) < 1e-7


@pytest.mark.parametrize("buffer", [0.2, 0.5, 1.0])
def test_soft_overlong_punishment(buffer: float) -> None:
    cases = [(length, limit) for limit in (5, 20, 100) for length in range(1, limit + 3)]
    lengths, limits = (torch.tensor(column, dtype=F64) for column in zip(*cases, strict=True))
    expected = torch.tensor([published.overlong(length, limit, buffer * limit) for length, limit in cases], dtype=F64)
    torch.testing.assert_close(soft_overlong_punishment(lengths, limits, buffer), expected)

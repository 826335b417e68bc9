"""The published formulas as plain Python loops over floats, independent of the package.

A batch is a list of rows; a row is the list of its actions, first to last. ``judged`` and ``groups`` have one entry per row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Rows = list[list[float]]


def gae(rewards: Rows, values: Rows, gamma: float, lam: float) -> Rows:
    """arXiv 1506.02438, eq. 16, as the sum of discounted errors."""
    advantages: Rows = []
    for r, v in zip(rewards, values, strict=True):
        deltas = [r[t] + gamma * (v[t + 1] if t + 1 < len(v) else 0.0) - v[t] for t in range(len(r))]
        advantages.append([sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(r))) for t in range(len(r))])
    return advantages


def peers(i: int, size: int, judged: Sequence[bool]) -> list[int]:
    """Judged rows of the question of row i, including i."""
    return [j for j in range(i - i % size, i - i % size + size) if judged[j]]


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def grpo(outcome: Sequence[float], size: int, judged: Sequence[bool]) -> list[float]:
    """arXiv 2402.03300, section 4.1.2; the implementation's 1e-4 keeps the division finite."""
    advantages = []
    for i, r in enumerate(outcome):
        rs = [outcome[j] for j in peers(i, size, judged)]
        if not judged[i] or len(rs) < 2:
            advantages.append(0.0)
            continue
        std = math.sqrt(sum((x - mean(rs)) ** 2 for x in rs) / (len(rs) - 1))
        advantages.append((r - mean(rs)) / (std + 1e-4))
    return advantages


def dr_grpo(outcome: Sequence[float], size: int, judged: Sequence[bool]) -> list[float]:
    """arXiv 2503.20783, section 3.2: only the mean is subtracted."""
    return [r - mean([outcome[j] for j in peers(i, size, judged)]) if judged[i] else 0.0 for i, r in enumerate(outcome)]


def rloo(reward: Sequence[float], size: int, judged: Sequence[bool]) -> list[float]:
    """arXiv 2402.14740, eq. 8: the baseline is the mean of the other samples."""
    advantages = []
    for i, r in enumerate(reward):
        others = [reward[j] for j in peers(i, size, judged) if j != i]
        advantages.append(r - mean(others) if judged[i] and others else 0.0)
    return advantages


def maxrl(outcome: Sequence[float], size: int, judged: Sequence[bool]) -> list[float]:
    """arXiv 2602.02710, algorithm 1."""
    advantages = []
    for i, r in enumerate(outcome):
        rs = [outcome[j] for j in peers(i, size, judged)]
        advantages.append((r - mean(rs)) / mean(rs) if judged[i] and sum(rs) > 0 else 0.0)
    return advantages


def reinforce_plus_plus(outcome: Sequence[float], kl_penalty: Rows) -> Rows:
    """arXiv 2501.03262, eq. 8: A_t = r - sum_{k >= t} beta KL_k, then over the batch (A - mean) / std.

    ``kl_penalty`` is beta KL_k. For the variant with baseline, pass outcomes minus their group mean.
    """
    raw = [[r - sum(kl[t:]) for t in range(len(kl))] for r, kl in zip(outcome, kl_penalty, strict=True)]
    every = [a for row in raw for a in row]
    std = math.sqrt(sum((a - mean(every)) ** 2 for a in every) / (len(every) - 1) + 1e-8)
    return [[(a - mean(every)) / std for a in row] for row in raw]


def ppo_clip(ratio: float, advantage: float, low: float, high: float, dual: float | None = None) -> float:
    """arXiv 1707.06347, eq. 7, as a loss; with ``dual`` arXiv 1912.09729, eq. 5."""
    surrogate = min(ratio * advantage, min(max(ratio, low), high) * advantage)
    if dual is not None and advantage < 0:
        surrogate = max(surrogate, dual * advantage)
    return -surrogate


def token_losses(new: Rows, old: Rows, advantages: Rows, low: float, high: float, dual: float | None = None) -> Rows:
    return [
        [ppo_clip(math.exp(n - o), a, low, high, dual) for n, o, a in zip(*rows, strict=True)]
        for rows in zip(new, old, advantages, strict=True)
    ]


def gspo_losses(new: Rows, old: Rows, advantages: Rows, low: float, high: float) -> Rows:
    """arXiv 2507.18071, eq. 5 to 7: one ratio per response, the length-normalised likelihood ratio."""
    losses: Rows = []
    for n, o, a in zip(new, old, advantages, strict=True):
        ratio = math.exp(sum(x - y for x, y in zip(n, o, strict=True)) / len(n)) if n else 1.0
        losses.append([ppo_clip(ratio, x, low, high) for x in a])
    return losses


def sequence(losses: Rows) -> float:
    """1/G sum_i 1/|o_i| sum_t (arXiv 2402.03300, eq. 3)."""
    return mean([mean(row) for row in losses if row])


def token(losses: Rows) -> float:
    """1 / sum_i |o_i| sum_{i,t} (DAPO, arXiv 2503.14476, eq. 8)."""
    return sum(map(sum, losses)) / sum(map(len, losses))


def sequence_sum(losses: Rows) -> float:
    """1/N sum_i sum_t: the log-probability of a response is a sum."""
    return sum(map(sum, losses)) / len([row for row in losses if row])


def constant(max_tokens: int) -> Callable[[Rows], float]:
    """1 / (G L) sum_{i,t} (arXiv 2503.20783, section 3.2 and listing 1), where G includes masked responses."""
    return lambda losses: sum(map(sum, losses)) / (len(losses) * max_tokens)


def value_losses(new: Rows, old: Rows, returns: Rows, clip: float) -> Rows:
    return [
        [0.5 * max((v - g) ** 2, (o + min(max(v - o, -clip), clip) - g) ** 2) for v, o, g in zip(*rows, strict=True)]
        for rows in zip(new, old, returns, strict=True)
    ]


def kl(kind: str, new: Rows, ref: Rows) -> Rows:
    """Schulman 2020, "Approximating KL divergence", for samples from ``new``."""
    estimate: dict[str, Callable[[float], float]] = {
        "k1": lambda log_r: -log_r,
        "k2": lambda log_r: log_r**2 / 2,
        "k3": lambda log_r: math.exp(log_r) - 1 - log_r,
    }
    return [[estimate[kind](r - n) for n, r in zip(*rows, strict=True)] for rows in zip(new, ref, strict=True)]


def overlong(length: int, limit: int, cache: float) -> float:
    """DAPO, arXiv 2503.14476, eq. 13."""
    if length <= limit - cache:
        return 0.0
    if length <= limit:
        return ((limit - cache) - length) / cache
    return -1.0


def finite_differences(function: Callable[[Rows], float], at: Rows, step: float = 1e-6) -> Rows:
    """Central differences of a function of all actions."""

    def moved(b: int, t: int, by: float) -> float:
        return function([[x + by * ((i, j) == (b, t)) for j, x in enumerate(row)] for i, row in enumerate(at)])

    return [[(moved(b, t, step) - moved(b, t, -step)) / (2 * step) for t in range(len(row))] for b, row in enumerate(at)]

"""Losses that train a classifier to rank the solutions of a question: one solution at a time, or a question at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its usual name)


def pointwise_loss(margins: Tensor, labels: Tensor) -> Tensor:
    """Compute the binary cross-entropy of each solution, [N] (nats).

    For a classifier with two logits the margin is their difference, and this is its cross-entropy.

    Args:
        margins: Log-odds that each solution is correct, [N].
        labels: [N] bool, true if it is.
    """
    return F.binary_cross_entropy_with_logits(margins, labels.to(margins.dtype), reduction="none")


def groupwise_loss(margins: Tensor, labels: Tensor, weights: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    """Compute -log of the probability that a softmax over a question's solutions gives its correct ones, [G] (nats).

    For solutions i of question g with weights w_i and margins s_i: -log(sum_{i correct} w_i e^{s_i} / sum_i w_i e^{s_i}).
    With one correct solution and equal weights this is ListNet's top-one loss (Cao et al. 2007, section 4.4).

    Args:
        margins: s, [N].
        labels: [N] bool; every group has a correct and a wrong solution.
        weights: w, [N], positive.
        groups: Index of each solution's question, [N] int64 in [0, G).
        n_groups: G.
    """
    logits = margins + weights.log()
    return _log_sum_exp(logits, groups, n_groups) - _log_sum_exp(logits[labels], groups[labels], n_groups)


def _log_sum_exp(logits: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    """Compute log sum_{i in g} exp(logits_i) for every group g, [G]."""
    largest = logits.detach().new_full((n_groups,), -torch.inf).scatter_reduce(0, groups, logits.detach(), "amax")
    return logits.new_zeros(n_groups).index_add(0, groups, (logits - largest[groups]).exp()).log() + largest

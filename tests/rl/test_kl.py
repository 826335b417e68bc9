"""KL estimators on sampled tokens."""

import torch

from reft_pl.rl.kl import k1_kl, k2_kl, k3_kl, sequence_kl

NAN = float("nan")
LOGPROBS = torch.tensor([[NAN, -1.0, -2.0, NAN], [-0.5, -1.5, -0.25, NAN]], dtype=torch.float64)
REFERENCE = torch.tensor([[NAN, -1.5, -1.0, NAN], [-0.5, -1.0, -1.25, NAN]], dtype=torch.float64)
MASK = ~LOGPROBS.isnan()


def test_hand_computed() -> None:
    assert k1_kl(LOGPROBS, REFERENCE, MASK).tolist() == [[0, 0.5, -1, 0], [0, -0.5, 1, 0]]
    assert sequence_kl(LOGPROBS, REFERENCE, MASK).tolist() == [-0.5, 0.5]
    assert k2_kl(LOGPROBS, REFERENCE, MASK).tolist() == [[0, 0.125, 0.5, 0], [0, 0.125, 0.5, 0]]


def test_both_estimators_have_the_divergence_as_expectation() -> None:
    """Exact: every token of a vocabulary of 6 once, weighted by its probability."""
    p, q = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    mask = torch.ones(1, 6, dtype=torch.bool)
    for estimator in (k1_kl, k3_kl):
        expectation = (p.exp() * estimator(p[None], q[None], mask)[0]).sum()
        torch.testing.assert_close(expectation, exact)
    assert (k3_kl(p[None], q[None], mask) >= 0).all()

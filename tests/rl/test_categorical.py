"""Gradients of log-probability and entropy against finite differences."""

from __future__ import annotations

import pytest
import torch

from reft_pl.rl.categorical import LogprobAndEntropy


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_gradients_of_logprob_and_entropy_against_finite_differences(temperature):
    torch.manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    before, targets = logits.detach().clone(), torch.tensor([0, 6, 3, 3, 1])

    def together(z):
        logprobs, entropy = LogprobAndEntropy.apply(z, targets, temperature)
        return 0.3 * logprobs + 0.7 * entropy

    assert torch.autograd.gradcheck(lambda z: LogprobAndEntropy.apply(z, targets, temperature), (logits,))
    assert torch.autograd.gradcheck(together, (logits,))
    assert torch.equal(logits, before)

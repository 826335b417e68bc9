from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from reft_pl.errors import UserError
from reft_pl.models.compilation import compile_layers, compiled_layers
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score


def trained(policy, batches):
    """Log-probabilities without gradient, those of a training pass, and the gradient, over batches of several sizes."""
    found = []
    for side in ("right", "left"):
        batch = batches(side)
        with torch.no_grad():
            found.append(score(policy, batch).logprobs)
        scores = score(policy, batch)
        (scores.logprobs.sum() + scores.values.square().sum()).backward()
        found += [scores.logprobs.detach(), scores.values.detach()]
    return found, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def with_head(lm, **arguments):
    policy = Policy(lm, "shared", **arguments).eval()
    nn.init.constant_(policy.value_head.weight, 0.1)
    return policy


@pytest.mark.slow  # a C++ compiler takes some ten seconds a graph
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_compiled_layers_compute_the_same(lm, batches, checkpointing):
    plain, compiled = (with_head(copy.deepcopy(lm), gradient_checkpointing=checkpointing) for _ in range(2))
    compile_layers(compiled)
    assert compiled_layers(compiled)
    assert not compiled_layers(copy.deepcopy(compiled))  # a copy is compiled when it is told to be
    (expected, expected_gradient), (found, gradient) = trained(plain, batches), trained(compiled, batches)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-4 * float(expected_gradient.abs().max()), rtol=0)
    assert torch.equal(found[0], found[1])  # with gradient and without: the ratio before an update is 1, not nearly 1


def test_without_a_compiler_layers_stay_as_they_are(llama, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler was found"):
        compile_layers(llama)
    assert not compiled_layers(llama)


def test_what_has_no_layers_is_refused():
    with pytest.raises(UserError, match=r"Linear has no layers that can be compiled: set policy\.compile to false"):
        compile_layers(nn.Linear(1, 1))

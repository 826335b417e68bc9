from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from reft_pl.errors import UserError
from reft_pl.models.compilation import compile_layers, compiled_layers
from reft_pl.models.policy import Policy, ValueKind
from reft_pl.models.scoring import score
from reft_pl.types import TokenBatch

pytestmark = pytest.mark.usefixtures("compiler_from_nothing")


def of_size(rows: int, length: int) -> TokenBatch:
    ids = torch.randint(3, 100, (rows, length), generator=torch.Generator().manual_seed(rows * length))
    real = torch.ones_like(ids, dtype=torch.bool)
    action = real.clone()
    action[:, : length // 2] = action[:, -1] = False
    return TokenBatch(ids, real, action)


def with_value(lm: PreTrainedModel, kind: ValueKind = "shared", *, checkpointing: bool = False) -> Policy:
    policy = Policy(copy.deepcopy(lm), kind, checkpointing).eval()
    assert policy.value_head is not None
    nn.init.constant_(policy.value_head.weight, 0.1)
    return policy


def passes(policy: Policy, batches: list[TokenBatch]) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
    """Return each batch's log-probabilities without and with gradients and its values, and the total gradient."""
    found = []
    for batch in batches:
        with torch.no_grad():
            before = score(policy, batch).logprobs
        scores = score(policy, batch)
        assert scores.values is not None
        (scores.logprobs.sum() + scores.values.square().sum()).backward()
        found.append((before, scores.logprobs.detach(), scores.values.detach()))
    return found, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@pytest.mark.slow  # a C++ compiler takes some ten seconds a graph
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_compiled_layers_compute_the_same(lm, batches, checkpointing):
    plain, compiled = (with_value(lm, checkpointing=checkpointing) for _ in range(2))
    compile_layers(compiled)
    assert compiled_layers(compiled)
    assert not compiled_layers(copy.deepcopy(compiled))  # a copy is not compiled by default
    given = [batches("right"), batches("left"), of_size(1, 9), of_size(6, 17)]
    (expected, expected_gradient), (found, gradient) = passes(plain, given), passes(compiled, given)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert torch.equal(ours[0], ours[1])  # the ratio before an update is 1
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-4 * float(expected_gradient.abs().max()), rtol=0)


@pytest.mark.slow
def test_bfloat16_scores_with_and_without_gradient_are_the_same(llama, batches):
    policy = with_value(llama.to(torch.bfloat16))
    compile_layers(policy)
    found, _ = passes(policy, [batches("right"), of_size(6, 17)])
    assert all(torch.equal(before, during) for before, during, _ in found)


def kept_bytes(policy: Policy, batch: TokenBatch) -> int:
    """Return the bytes saved between forward and backward pass, excluding weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*policy.parameters(), *policy.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = policy.hidden_states(batch.input_ids, batch.attention_mask)
    assert hidden.requires_grad  # keeps the graph, and with it the saved tensors, alive
    return sum(kept.values())


@pytest.mark.slow
def test_compiled_layers_keep_less_than_half(llama):
    plain, compiled = (with_value(llama) for _ in range(2))
    compile_layers(compiled)
    batch = of_size(6, 64)
    assert kept_bytes(compiled, batch) < 0.5 * kept_bytes(plain, batch)


@pytest.mark.slow
def test_a_separate_value_model_is_compiled_too(llama, batches):
    plain, compiled = (with_value(llama, "separate") for _ in range(2))
    compile_layers(compiled)
    assert len(compiled_layers(compiled)) == 2 * len(compiled_layers(compiled.lm))
    (expected, _), (found, _) = passes(plain, [batches("right")]), passes(compiled, [batches("right")])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_all_layers_and_sizes_share_their_code():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=101, hidden_size=32, intermediate_size=48, num_hidden_layers=7, num_attention_heads=4, num_key_value_heads=2
    )
    policy = with_value(AutoModelForCausalLM.from_config(config, dtype=torch.float32))
    compile_layers(policy)
    passes(policy, [of_size(rows, length) for rows, length in ((4, 14), (7, 9), (3, 30), (12, 5), (2, 21))])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # with and without gradients
    passes(policy, [of_size(1, 14), of_size(1, 20)])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4  # a single row compiles separately


def test_without_a_compiler_layers_run_uncompiled(llama):
    with inductor.patch("cpp.cxx", ("no-such-compiler",)), pytest.warns(UserWarning, match=r"there is no C\+\+ compiler"):
        compile_layers(llama)
    assert not compiled_layers(llama)


def test_without_pythons_header_layers_run_uncompiled(llama, monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.warns(UserWarning, match=r"there is no \S+Python\.h \(of"):
        compile_layers(llama)
    assert not compiled_layers(llama)


def test_a_model_without_layers_is_refused():
    with pytest.raises(UserError, match=r"Linear has no layers that can be compiled: set policy\.compile to false"):
        compile_layers(nn.Linear(1, 1))

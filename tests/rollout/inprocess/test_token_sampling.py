"""Sampling of tokens: frequencies, truncation as in transformers, the edges of the unit interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from reft_pl.rollout.inprocess.token_sampling import (
    CHUNK_LOGITS_CPU,
    DrawParams,
    draw,
    inverse_cdf,
    truncate_top_k,
    truncate_top_p,
)
from reft_pl.rollout.seeds import counter_seed, uniforms_at
from reft_pl.types import SamplingParams

CPU = torch.device("cpu")
BELOW_ONE = 1 - 2.0**-53
NONE = float("-inf")


def random_scores(rows: int, vocab: int = 50) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(0)) * 3


def test_frequencies_are_the_probabilities() -> None:
    probabilities = torch.tensor([0.4, 0.05, 0.0, 0.25, 0.3])
    n = 20_000
    u = torch.from_numpy(uniforms_at([counter_seed(0, "t", 0, "x", 0)] * n, range(n)))
    tokens, _ = inverse_cdf(probabilities.log().expand(n, 5), u)
    counts = tokens.bincount(minlength=5).double()
    expected = probabilities.double() * n
    assert counts[2] == 0
    possible = probabilities > 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 16.3  # chi-square, 3 degrees of freedom, p = 0.001


def test_inverse_cdf_by_hand() -> None:
    scores = torch.tensor([0.25, 0.0, 0.25, 0.5]).log().expand(7, 4)
    u = torch.tensor([0.0, 0.2499, 0.25, 0.4999, 0.5, 0.9, BELOW_ONE], dtype=torch.float64)
    assert inverse_cdf(scores, u)[0].tolist() == [0, 0, 2, 2, 3, 3, 3]


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1 - 2.0**-30, BELOW_ONE]), st.integers(1, 30))
def test_an_impossible_token_is_never_sampled(seed: int, u: float, possible: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, 1000, generator=generator) * 20
    allowed = torch.randperm(1000, generator=generator)[:possible]
    masked = torch.full_like(scores, NONE).index_copy(1, allowed, scores[:, allowed])
    token = int(inverse_cdf(masked, torch.tensor([u], dtype=torch.float64))[0])
    assert token in allowed.tolist()


def test_the_last_possible_token_covers_the_top_of_the_interval() -> None:
    scores = torch.tensor([[0.0, 1.0, NONE, NONE]])
    assert inverse_cdf(scores, torch.tensor([BELOW_ONE], dtype=torch.float64))[0].item() == 1


@pytest.mark.parametrize("vocab", [1, 7, 255, 256, 257, 512, 1000])
def test_results_do_not_depend_on_blocks(vocab: int) -> None:
    scores = random_scores(300, vocab) * 2
    u = torch.from_numpy(uniforms_at([3] * 300, range(300)))
    tokens, log_normalizer = inverse_cdf(scores, u)
    cdf = scores.double().softmax(-1).cumsum(-1)
    below = torch.where(tokens > 0, cdf.gather(-1, (tokens[:, None] - 1).clamp(min=0))[:, 0], 0.0)
    assert bool((below <= u + 1e-6).all())
    assert bool((cdf.gather(-1, tokens[:, None])[:, 0] > u - 1e-6).all())
    assert (tokens == (cdf <= u[:, None]).sum(-1)).double().mean() > 0.98
    torch.testing.assert_close(log_normalizer, scores.logsumexp(-1))


def test_top_k_is_that_of_transformers() -> None:
    scores = random_scores(6)
    scores[1, 5:9] = scores[1].max() + 1  # ties at the top
    k = [1, 2, 7, 50, 80, 3]
    ours = truncate_top_k(scores, torch.tensor(k))
    for row in range(6):
        assert torch.equal(ours[row], TopKLogitsWarper(k[row])(None, scores[row : row + 1])[0])
    assert torch.equal(truncate_top_k(scores, torch.tensor([0, 0, 0, 0, 0, 4]))[:5], scores[:5])


def test_top_p_is_that_of_transformers() -> None:
    scores = random_scores(6)
    p = [0.01, 0.3, 0.5, 0.9, 0.999, 0.7]
    ours = truncate_top_p(scores, torch.tensor(p))
    for row in range(6):
        assert torch.equal(ours[row], TopPLogitsWarper(p[row])(None, scores[row : row + 1])[0])
    assert torch.equal(truncate_top_p(scores, torch.tensor([1.0] * 5 + [0.5]))[:5], scores[:5])


@pytest.mark.parametrize("params", [SamplingParams(1, 0.7, 5, 0.8), SamplingParams(1, 1.5, 0, 0.6), SamplingParams(1, 0.9, 3)])
def test_temperature_top_k_top_p_in_the_order_of_transformers(params: SamplingParams) -> None:
    scores = random_scores(1)
    warped = TemperatureLogitsWarper(params.temperature)(None, scores)
    if params.top_k:
        warped = TopKLogitsWarper(params.top_k)(None, warped)
    if params.top_p < 1:
        warped = TopPLogitsWarper(params.top_p)(None, warped)
    n = 4000
    u = torch.from_numpy(uniforms_at([1] * n, range(n)))
    tokens, logprobs = draw(scores.expand(n, -1), DrawParams.of([params] * n, CPU), u)
    assert torch.equal(tokens, inverse_cdf(warped.expand(n, -1), u)[0])
    assert set(tokens.tolist()) <= set(warped[0].isfinite().nonzero()[:, 0].tolist())
    expected = (scores / params.temperature).log_softmax(-1)[0, tokens]  # before truncation
    torch.testing.assert_close(logprobs, expected)


def test_rows_keep_their_own_parameters() -> None:
    params = [SamplingParams(1, 0.0), SamplingParams(1, 2.0), SamplingParams(1, 1.0, 2), SamplingParams(1, 1.0, 0, 0.5)]
    scores = random_scores(4)
    u = torch.tensor([0.3, 0.6, 0.9, 0.99], dtype=torch.float64)
    tokens, logprobs = draw(scores, DrawParams.of(params, CPU), u)
    for row in range(4):
        token, logprob = draw(scores[row : row + 1], DrawParams.of(params[row : row + 1], CPU), u[row : row + 1])
        assert token == tokens[row]
        torch.testing.assert_close(logprob[0], logprobs[row])
    assert tokens[0] == scores[0].argmax()
    torch.testing.assert_close(logprobs[0], scores[0].log_softmax(-1).max())


def test_results_do_not_depend_on_row_chunks() -> None:
    vocab = CHUNK_LOGITS_CPU // 2
    params = DrawParams.of([SamplingParams(1, t, k) for t, k in ((1.0, 0), (0.5, 4), (0.0, 0), (1.5, 0), (1.0, 9))], CPU)
    scores = random_scores(5, vocab)
    u = torch.from_numpy(uniforms_at([7] * 5, range(5)))
    tokens, logprobs = draw(scores, params, u)
    for row in range(5):
        token, logprob = draw(scores[row : row + 1], params.rows(slice(row, row + 1)), u[row : row + 1])
        assert (token.item(), logprob.item()) == (tokens[row].item(), logprobs[row].item())


def test_non_finite_logits_give_no_finite_logprob() -> None:
    scores = torch.full((2, 5), float("nan"))
    scores[1] = torch.tensor([0.0, float("inf"), 0, 0, 0])
    for params in (SamplingParams(1), SamplingParams(1, 0.0)):
        _, logprobs = draw(scores, DrawParams.of([params] * 2, CPU), torch.from_numpy(np.array([0.1, 0.9])))
        assert not logprobs.isfinite().any()


def test_half_precision_logits_are_sampled_in_single_precision() -> None:
    scores = random_scores(3).bfloat16()
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    tokens, logprobs = draw(scores, DrawParams.of([SamplingParams(1)] * 3, CPU), u)
    expected_tokens, expected = draw(scores.float(), DrawParams.of([SamplingParams(1)] * 3, CPU), u)
    assert logprobs.dtype == torch.float32
    assert torch.equal(tokens, expected_tokens)
    assert torch.equal(logprobs, expected)


@pytest.mark.parametrize(
    "params", [SamplingParams(1), SamplingParams(1, 0.0), SamplingParams(1, 0.7, 5), SamplingParams(1, 1.3, 0, 0.9)]
)
def test_suppressed_ids_are_never_sampled_and_do_not_change_logprobs(params: SamplingParams) -> None:
    n, suppressed = 3000, ((0, 2), (40, 50))
    scores = random_scores(1)
    scores[0, 1], scores[0, 45] = 8.0, 9.0  # what would be chosen
    before, u = scores.clone(), torch.from_numpy(uniforms_at([1] * n, range(n)))
    both = [replace(params, suppressed=suppressed if row % 2 else ()) for row in range(n)]
    tokens, logprobs = draw(scores.expand(n, -1), DrawParams.of(both, CPU), u)
    ours, free = tokens[1::2], tokens[0::2]
    assert not any(((ours >= start) & (ours < end)).any() for start, end in suppressed)
    assert bool((free >= 40).any()), "rows without suppressed ids keep theirs"
    torch.testing.assert_close(logprobs, (scores / (params.temperature or 1)).log_softmax(-1)[0, tokens])
    assert torch.equal(scores, before)
    kept = scores.clone()
    for start, end in suppressed:
        kept[:, start:end] = NONE
    alone, _ = draw(kept.expand(n, -1), DrawParams.of([params] * n, CPU), u)
    assert torch.equal(ours, alone[1::2])

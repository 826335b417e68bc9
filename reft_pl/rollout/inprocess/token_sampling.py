"""Sample tokens, with their log-probabilities, from logits and one uniform number per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reft_pl.types import SamplingParams

BLOCK = 256
"""Block size, in tokens, of the two-level cumulative sum."""

CHUNK_LOGITS_CPU = 2**20
"""Number of logits processed at once in float32 on the CPU: 4 MB, which fits in the CPU cache."""


@dataclass(frozen=True, slots=True)
class DrawParams:
    """The sampling parameters of B rows as tensors [B]; None if no row uses the feature.

    ``suppressed`` [B] indexes ``ranges``, the distinct ``SamplingParams.suppressed`` of the rows.
    """

    temperature: Tensor | None
    greedy: Tensor | None
    top_k: Tensor | None
    top_p: Tensor | None
    suppressed: Tensor | None = None
    ranges: tuple[tuple[tuple[int, int], ...], ...] = ()

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> DrawParams:
        """Collect the parameters of a batch's rows. Greedy rows (temperature 0) get temperature 1 and no truncation."""
        temperature = [p.temperature or 1.0 for p in params]
        greedy = [p.temperature == 0 for p in params]
        top_k = [0 if g else p.top_k for p, g in zip(params, greedy, strict=True)]
        top_p = [1.0 if g else p.top_p for p, g in zip(params, greedy, strict=True)]
        ranges = tuple(dict.fromkeys(p.suppressed for p in params))
        suppressed = [ranges.index(p.suppressed) for p in params]
        return cls(
            torch.tensor(temperature, device=device) if any(t != 1 for t in temperature) else None,
            torch.tensor(greedy, device=device) if any(greedy) else None,
            torch.tensor(top_k, device=device) if any(top_k) else None,
            torch.tensor(top_p, device=device) if any(p < 1 for p in top_p) else None,
            torch.tensor(suppressed, device=device) if any(ranges) else None,
            ranges if any(ranges) else (),
        )

    def rows(self, rows: slice | Tensor) -> DrawParams:
        """Select the parameters of some rows: a slice, or [N] int64 indices, which may repeat."""
        tensors = (self.temperature, self.greedy, self.top_k, self.top_p, self.suppressed)
        temperature, greedy, top_k, top_p, suppressed = (None if t is None else t[rows] for t in tensors)
        return DrawParams(temperature, greedy, top_k, top_p, suppressed, self.ranges)


def draw(logits: Tensor, params: DrawParams, u: Tensor) -> tuple[Tensor, Tensor]:
    """Sample one token per row.

    Args:
        logits: Next-token logits, [B, V], any floating-point dtype.
        params: Sampling parameters of the B rows.
        u: Uniform numbers in [0, 1), [B] float64.

    Returns:
        Token ids [B] int64, and their log-probabilities [B] fp32 at the sampling temperature before truncation.
    """
    chunk = max(1, CHUNK_LOGITS_CPU // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
    slices = [slice(start, start + chunk) for start in range(0, len(logits), chunk)]
    parts = [_draw_chunk(logits[rows], params.rows(rows), u[rows]) for rows in slices]
    return torch.cat([tokens for tokens, _ in parts]), torch.cat([logprobs for _, logprobs in parts])


def _draw_chunk(logits: Tensor, params: DrawParams, u: Tensor) -> tuple[Tensor, Tensor]:
    scores = logits.float()
    if params.temperature is not None:
        scores = scores / params.temperature[:, None]
    kept = scores
    if params.suppressed is not None:
        kept = suppress(kept, params.suppressed, params.ranges)
    if params.top_k is not None:
        kept = truncate_top_k(kept, params.top_k)
    if params.top_p is not None:
        kept = truncate_top_p(kept, params.top_p)
    tokens, log_normalizer = inverse_cdf(kept, u)
    if kept is not scores:
        log_normalizer = scores.logsumexp(dim=-1)
    if params.greedy is not None:
        tokens = torch.where(params.greedy, kept.argmax(dim=-1), tokens)
    return tokens, scores.gather(-1, tokens[:, None]).squeeze(-1) - log_normalizer


def inverse_cdf(scores: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first token, by id, at which the cumulative probability exceeds ``u``.

    The cumulative sum runs over blocks of tokens, then within the block that ``u`` falls into.

    Args:
        scores: Unnormalised log-probabilities, [B, V] fp32; -inf is never chosen.
        u: [B] float64 in [0, 1).

    Returns:
        Token ids [B] int64, and the logarithm of the sum of ``exp(scores)``, [B] fp32.
    """
    vocab = scores.shape[-1]
    highest = scores.amax(dim=-1, keepdim=True)
    weights = (scores - highest).exp_()
    whole = vocab - vocab % BLOCK
    blocks = weights[:, :whole].view(len(weights), -1, BLOCK).sum(dim=-1)
    if whole < vocab:
        blocks = torch.cat([blocks, weights[:, whole:].sum(dim=-1, keepdim=True)], dim=-1)
    block_cdf = blocks.cumsum(dim=-1, dtype=torch.float64)
    total = block_cdf[:, -1:]
    target = u[:, None] * total  # the total is unnormalized and rounded: scale u to it, to avoid bias
    block = _first_above(block_cdf, target)
    before = torch.where(block > 0, block_cdf.gather(-1, (block - 1).clamp(min=0)), 0.0)
    columns = block * BLOCK + torch.arange(min(BLOCK, vocab), device=scores.device)
    inside = weights.gather(-1, columns.clamp(max=vocab - 1)).masked_fill(columns >= vocab, 0.0)
    token = block * BLOCK + _first_above(inside.cumsum(dim=-1, dtype=torch.float64), target - before)
    # In a non-finite distribution no token is found: clamp to the vocabulary; the log-probability reveals the fault.
    return token.clamp(max=vocab - 1).squeeze(-1), (highest + total.log()).squeeze(-1).float()


def _first_above(cdf: Tensor, target: Tensor) -> Tensor:
    """Return each row's first index at which ``cdf`` [B, N] exceeds ``target`` [B, 1]: [B, 1].

    If rounding lifts the target to the row's total, return the last index that contributes to the total.
    """
    return torch.minimum(torch.searchsorted(cdf, target, right=True), torch.searchsorted(cdf, cdf[:, -1:].contiguous()))


def suppress(scores: Tensor, suppressed: Tensor, ranges: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Set the scores of suppressed tokens to -inf.

    Args:
        scores: [B, V] fp32.
        suppressed: [B] int64, each row's index into ``ranges``.
        ranges: Half-open ranges of token ids.
    """
    kept = scores.clone()
    for index, spans in enumerate(ranges):
        row = (suppressed == index)[:, None]
        for start, end in spans:
            kept[:, start:end].masked_fill_(row, float("-inf"))
    return kept


def truncate_top_k(scores: Tensor, top_k: Tensor) -> Tensor:
    """Set everything below a row's k-th highest logit to -inf. Ties are kept; k = 0 keeps the whole row.

    Args:
        scores: [B, V].
        top_k: [B] int64.
    """
    k = top_k.clamp(max=scores.shape[-1])
    highest = scores.topk(max(1, int(k.max())), dim=-1).values
    threshold = highest.gather(-1, (k - 1).clamp(min=0)[:, None])
    return scores.masked_fill((scores < threshold) & (k > 0)[:, None], float("-inf"))


def truncate_top_p(scores: Tensor, top_p: Tensor) -> Tensor:
    """Keep each row's most probable tokens until their probabilities sum to at least p; set the others to -inf.

    This is nucleus sampling. The most probable token is always kept; p = 1 keeps the whole row.

    Args:
        scores: [B, V] fp32.
        top_p: [B].
    """
    ascending, order = scores.sort(dim=-1)
    dropped = ascending.softmax(dim=-1).cumsum(dim=-1) <= (1 - top_p)[:, None]
    dropped[:, -1] = False
    dropped &= (top_p < 1)[:, None]
    return scores.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))

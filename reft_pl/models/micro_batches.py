"""Split a batch into micro-batches with bounded size and little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from reft_pl.models.shared_prompts import bounds, prompt_groups
from reft_pl.types import TokenBatch


def micro_batches(batch: TokenBatch, max_tokens: int, *, shared: bool) -> list[Tensor]:
    """Split a batch by ``split_shared`` if its rows share prompts and the model can use that, else by ``split``."""
    groups = prompt_groups(batch) if shared else []
    return split_shared(batch, max_tokens, groups) if any(len(group) > 1 for group in groups) else split(batch, max_tokens)


def split_shared(batch: TokenBatch, max_tokens: int, groups: Sequence[Sequence[int]]) -> list[Tensor]:
    """Group rows by prompt and length, so that prompts and responses together have at most ``max_tokens`` tokens.

    A prompt counts once in a micro-batch. Groups with the longest rows come first. Rows without actions are left out, because
    nothing is computed for them.

    Args:
        batch: B sequences.
        max_tokens: Maximum tokens per micro-batch; a longer row gets its own.
        groups: From ``prompt_groups``.

    Returns:
        Row indices of each micro-batch, int64 on the CPU.

    Raises:
        ValueError: ``max_tokens`` is less than 1.
    """
    _check(max_tokens)
    starts, firsts, ends = (bound.tolist() for bound in bounds(batch))
    found: list[list[int]] = []
    room = 0
    for group in sorted(groups, key=lambda rows: -max(ends[row] - starts[row] for row in rows)):
        prompt, first = firsts[group[0]] + 1 - starts[group[0]], True
        for row in group:
            response = ends[row] - firsts[row] - 1
            cost = response + prompt * first
            if not found or cost > room:
                found.append([])
                cost, room = prompt + response, max_tokens
            found[-1].append(row)
            room -= cost
            first = False
    return [torch.tensor(rows) for rows in found]


def split(batch: TokenBatch, max_tokens: int) -> list[Tensor]:
    """Group the rows of a batch by length, longest first, so that rows times longest row is at most ``max_tokens``.

    A row longer than ``max_tokens`` gets its own micro-batch. The longest rows come first, so that a micro-batch that does not
    fit in memory fails early.

    Args:
        batch: B sequences.
        max_tokens: Maximum tokens per micro-batch, padding included; at least 1.

    Returns:
        Row indices of each micro-batch, int64 on the CPU. They partition 0..B-1 and depend only on the row lengths.

    Raises:
        ValueError: ``max_tokens`` is less than 1.
    """
    _check(max_tokens)
    lengths = batch.attention_mask.sum(1).cpu()
    order = torch.argsort(lengths, descending=True, stable=True)
    groups: list[Tensor] = []
    start = 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[start]])))
        groups.append(order[start : start + rows])
        start += rows
    return groups


def take(batch: TokenBatch, rows: Tensor, device: torch.device | None = None) -> TokenBatch:
    """Select rows, shift them flush left, and trim them to the longest.

    Positions past a row's end hold the ids of its padding and are masked.

    Args:
        batch: B sequences with padding on any side.
        rows: [b] int64 row indices.
        device: Device of the micro-batch; None keeps the device of ``batch``.
    """
    rows = rows.to(batch.input_ids.device)
    mask = batch.attention_mask[rows]
    length = int(mask.sum(1).max()) if len(rows) else 0
    order = torch.argsort(~mask.bool(), dim=1, stable=True)[:, :length]
    return TokenBatch(
        *(t[rows].gather(1, order).to(device) for t in (batch.input_ids, batch.attention_mask, batch.action_mask))
    )


def _check(max_tokens: int) -> None:
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")


def by_size(sizes: Sequence[tuple[int, int]], max_tokens: int) -> Iterator[list[int]]:
    """Yield the indices of groups of rows in micro-batches, those with the longest rows first.

    Args:
        sizes: Number of rows of each group, and the length of its longest row in tokens.
        max_tokens: Upper bound of rows times the longest row; a larger group gets its own micro-batch.
    """
    micro_batch: list[int] = []
    rows = longest = 0
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i][1]):
        if micro_batch and (rows + sizes[index][0]) * longest > max_tokens:
            yield micro_batch
            micro_batch, rows = [], 0
        if not micro_batch:
            longest = sizes[index][1]
        micro_batch.append(index)
        rows += sizes[index][0]
    if micro_batch:
        yield micro_batch

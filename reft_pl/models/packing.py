"""Several sequences packed into one row without padding: the token layout, and causal attention within each sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(slots=True, eq=False)
class Packing:
    """Layout of the N new tokens of B sequences; the tokens of a sequence are adjacent.

    ``rows`` [N] and ``positions`` [N] are each token's sequence and its position there. ``padded`` [B, T] holds the packed
    index of each token (0 in the padding on the right), and ``packed`` [N] the flat index b * T + t of each packed token.
    ``decoding`` is true if keys and values come from the slots of a cache, which also holds those of earlier tokens.
    """

    rows: Tensor
    positions: Tensor
    padded: Tensor
    packed: Tensor
    decoding: bool
    _masks: dict[int, Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device, starts: Sequence[int] | None = None) -> Packing:
        """Pack the sequences one after the other.

        Args:
            lengths: Number of new tokens of each sequence.
            device: Device of the tensors.
            starts: Position of each sequence's first new token in its cache slot; None for whole prompts.
        """
        sizes = torch.tensor(lengths)
        columns = torch.arange(max(lengths))[None, :]
        real = columns < sizes[:, None]
        padded = torch.where(real, columns + (sizes.cumsum(0) - sizes)[:, None], 0)
        packed = real.flatten().nonzero().squeeze(-1)
        rows, positions = packed // columns.shape[1], packed % columns.shape[1]
        if starts is not None:
            positions = positions + torch.tensor(starts)[rows]
        return cls(rows.to(device), positions.to(device), padded.to(device), packed.to(device), decoding=starts is not None)

    @property
    def last(self) -> Tensor:
        """Return the packed index of each sequence's last token, [B]."""
        return self.padded.amax(dim=1)

    def mask(self, room: int, dtype: torch.dtype, window: int = 0) -> Tensor:
        """Return the additive attention mask over ``room`` cached tokens, [B, 1, T, L]: 0 or -inf.

        It is 0 at the token itself and at earlier tokens, limited to the last ``window`` of them unless ``window`` is 0.
        """
        if window not in self._masks:  # shared by all layers with the same window
            own, other = self.positions[self.padded][..., None], torch.arange(room, device=self.padded.device)
            hidden = other > own
            if window:
                hidden |= other <= own - window
            zeros = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            self._masks[window] = zeros.masked_fill_(hidden, float("-inf"))[:, None]
        return self._masks[window]


_current: list[Packing] = []


@contextmanager
def packed(packing: Packing) -> Iterator[None]:
    """Set the token layout that the sampler's attention uses within the block.

    The layout is not passed through the model: not every model would forward it, and compiled layers would specialize on its
    shapes. A global is safe because the samplers of a process share one thread.
    """
    _current.append(packing)
    try:
        yield
    finally:
        _current.pop()


def current_packing() -> Packing:
    """Return the layout of the innermost ``packed`` block."""
    return _current[-1]


def packed_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, packing: Packing, window: int = 0) -> Tensor:
    """Compute causal attention within each sequence of a packed row; internally, pad the sequences to the longest.

    Args:
        query: [1, H, N, D].
        key: [1, K, N, D] with K key heads, H a multiple of K.
        value: Same shape as ``key``.
        scaling: Factor on the attention scores.
        packing: Layout of the N tokens.
        window: Sliding window in tokens, including the query's own; 0 for full causal attention.

    Returns:
        [1, N, H, D].
    """
    groups = query.shape[1] // key.shape[1]
    # Padding is on the right, where causal queries never attend.
    q, k, v = (states[0][:, packing.padded].transpose(0, 1) for states in (query, key, value))
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if window and window < q.shape[2]:
        seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril().triu(1 - window)
        output = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling)
    else:
        output = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    return output.transpose(1, 2).flatten(0, 1)[packing.packed][None]

"""Token layout of several sequences packed into one row without padding; only attention needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


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

    def pad(self, states: Tensor) -> Tensor:
        """Arrange the states of the tokens [N, H, D] as padded rows [B, H, T, D]; padding repeats the first token."""
        padded: Tensor = _Pad.apply(states, self.padded, self.packed)  # type: ignore[no-untyped-call]
        return padded

    def unpad(self, rows: Tensor) -> Tensor:
        """Arrange padded rows [B, H, T, D] as the states of the tokens [N, H, D], the inverse of ``pad``."""
        packed: Tensor = _Unpad.apply(rows, self.padded, self.packed)  # type: ignore[no-untyped-call]
        return packed

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


class _Pad(torch.autograd.Function):
    """``Packing.pad``; every token has one place, so its gradient is gathered rather than summed."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, padded: Tensor, packed: Tensor) -> Tensor:
        ctx.packed = packed
        return states.index_select(0, padded.flatten()).view(*padded.shape, *states.shape[1:]).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].transpose(1, 2).flatten(0, 1).index_select(0, ctx.packed), None, None


class _Unpad(torch.autograd.Function):
    """``Packing.unpad``; gradients are 0 at padding."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, padded: Tensor, packed: Tensor) -> Tensor:
        ctx.padded, ctx.packed = padded, packed
        return rows.transpose(1, 2).flatten(0, 1).index_select(0, packed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows = grads[0].new_zeros(ctx.padded.numel(), *grads[0].shape[1:]).index_copy_(0, ctx.packed, grads[0])
        return rows.view(*ctx.padded.shape, *grads[0].shape[1:]).transpose(1, 2), None, None


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

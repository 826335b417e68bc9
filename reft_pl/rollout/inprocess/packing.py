"""Several sequences' new tokens in one row, without padding: what attention has to know of them, and no other layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True, eq=False)
class Packing:
    """Where the N new tokens of B sequences stand, those of a sequence side by side.

    ``rows`` [N] and ``positions`` [N] tell each token's sequence and its position there. ``padded`` [B, T] holds the packed
    index of each token (0 in the padding on the right), ``packed`` [N] the flat index b * T + t of each packed token.
    ``decoding`` says whether keys and values come from the slots of a cache, where those of earlier tokens lie too.
    """

    rows: Tensor
    positions: Tensor
    padded: Tensor
    packed: Tensor
    decoding: bool
    _masks: dict[int, Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device, starts: Sequence[int] | None = None) -> Packing:
        """Lay the sequences out one after the other.

        Args:
            lengths: New tokens of each sequence.
            device: Where the tensors are wanted.
            starts: Position of each sequence's first new token, in the slots of a cache; None for whole prompts.
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
        """The packed index of each sequence's last token, [B]."""
        return self.padded.amax(dim=1)

    def mask(self, room: int, dtype: torch.dtype, window: int = 0) -> Tensor:
        """What to add to the scores over ``room`` cached tokens, [B, 1, T, L]: 0 or -inf.

        It is 0 at the token itself and before, with a ``window`` at the last that many of these (0 for no window).
        """
        if window not in self._masks:  # the same for every layer of a kind
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
    """A block in which the sampler's attention finds its tokens laid out in this way.

    It is not handed through the model: not every model would hand it on, and compiled layers would be compiled for its shapes.
    Samplers of one process share a thread.
    """
    _current.append(packing)
    try:
        yield
    finally:
        _current.pop()


def current_packing() -> Packing:
    """That of the innermost block."""
    return _current[-1]

"""Faster decoding on a CPU: weights packed by oneDNN, compiled layers and compiled attention.

The engine works without any of it. Samples are identical up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from reft_pl.models.compilation import compiled_layers
from reft_pl.rollout.inprocess.acceleration.layer_compilation import compiled_sampling
from reft_pl.rollout.inprocess.acceleration.packed_weights import PackedWeights


class Acceleration:
    """The accelerations that apply to a model on this machine; none on a GPU unless its layers are compiled.

    Args:
        lm: The model. Its weights must not change during the lifetime of this object.
        rows: Rows of a decoding step to optimize for; any number works.
        packed: Whether the engine decodes the model itself, as opposed to the library's ``generate``.
    """

    def __init__(self, lm: PreTrainedModel, rows: int, packed: bool) -> None:
        self._lm = lm
        self._weights = PackedWeights(lm, rows)
        self._packed = packed

    @property
    def compiles_attention(self) -> bool:
        """Return whether decoding may use compiled attention: only if the user asks for compiled layers."""
        return bool(compiled_layers(self._lm))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use packed weights and compiled layers within this block."""
        with self._weights.used():
            if self._packed:
                with compiled_sampling(self._lm):
                    yield
            else:
                yield

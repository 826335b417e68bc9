"""Rollouts by a vLLM engine in the trainer's own process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rollout.vllm.engine import Engine, EngineSettings
from reft_pl.rollout.vllm.engine_sampler import EngineSampler, engine_gone
from reft_pl.types import Completion, SampleRequest


class VLLMSampler(EngineSampler):
    """Samples with a vLLM engine in the trainer's process, on the trainer's device, with a copy of the policy's weights.

    The first use takes a minute: vLLM starts, and compiles the model. Samples are drawn by vLLM's generators: they are others
    than ``InProcessSampler``'s, and repeat with the same engine on the same machine.

    Args:
        max_rows: Sequences that are decoded side by side.
        max_model_len: Tokens that a prompt and its completion may have together; the model's positions bound it too.
        cache_gib: Memory for keys and values, in GiB, beside the copy of the weights.
        enforce_eager: Do not compile the model: starts faster, samples slower.
        max_mismatch: Mean difference between the engine's log-probabilities and the policy's (nats a token) above which a
            rollout is refused. In bfloat16 some 0.05 is rounding.
    """

    def __init__(
        self,
        max_rows: int = 256,
        max_model_len: int = 2048,
        cache_gib: float = 2.0,
        enforce_eager: bool = False,
        max_mismatch: float = 0.2,
    ) -> None:
        super().__init__(max_mismatch)
        self.settings = EngineSettings(max_rows, max_model_len, cache_gib, enforce_eager)

    @property
    def _running(self) -> bool:
        return super()._running and not self._engine.closed

    def close(self) -> None:
        """Stop the engine."""
        if self._running:
            self._engine.close()
        super().close()

    def _start(self, config: dict[str, Any], dtype: str) -> int:
        self._engine = Engine(config, dtype, self.settings)
        return self._engine.max_model_len

    def _load(self, weights: Iterable[tuple[str, Tensor]]) -> str:
        try:
            return self._engine.load(weights)
        except Exception as error:
            raise engine_gone("the vLLM engine did not take the policy's weights", error) from error

    def _stream(self, requests: Sequence[SampleRequest], digest: str) -> Iterator[Completion]:
        try:
            yield from self._engine.stream(requests)
        except UserError:
            raise
        except Exception as error:  # whatever happens inside vLLM; what the reader of the stream does is not seen here
            self._digest = None
            raise engine_gone("the vLLM engine died while it sampled", error) from error

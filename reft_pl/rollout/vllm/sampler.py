"""The sampler that uses a vLLM engine in the trainer's process."""

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

    The first use takes a minute, because vLLM starts and compiles the model. vLLM uses its own random generators: samples
    differ from those of ``InProcessSampler``, but are reproducible with the same engine on the same machine.

    Args:
        max_rows: Maximum number of sequences decoded in one batch.
        max_model_len: Maximum length of a prompt with its completion, in tokens; the model's positions limit it too.
        cache_gib: Size of the KV cache, in GiB, in addition to the copy of the weights.
        enforce_eager: Do not compile the model; starts faster, samples slower.
        max_mismatch: Reject a rollout if the mean difference between the log-probabilities of engine and policy is larger,
            in nats per token. In bfloat16, about 0.05 is rounding.
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
            raise engine_gone("the vLLM engine failed to load the policy's weights", error) from error

    def _stream(self, requests: Sequence[SampleRequest], digest: str) -> Iterator[Completion]:
        try:
            yield from self._engine.stream(requests)
        except UserError:
            raise
        except Exception as error:  # any failure in vLLM; exceptions of the consumer do not reach this frame
            self._digest = None
            raise engine_gone("the vLLM engine failed while sampling", error) from error

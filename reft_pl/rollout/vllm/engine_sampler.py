"""Base class of the vLLM samplers: send updated weights to the engine, and verify that they arrived."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reft_pl.errors import UserError, described
from reft_pl.models.adapters import plain_names, plain_weights
from reft_pl.rollout.base import TWO_TOKENS, Sampler
from reft_pl.rollout.vllm.digest import weights_digest
from reft_pl.types import Completion, SampleRequest

if TYPE_CHECKING:
    from reft_pl.models.policy import Policy


class EngineSampler(Sampler):
    """Base class of samplers that keep a copy of the policy's weights in an engine.

    Three checks prevent sampling with stale weights:

    - ``sync`` compares the digest of the engine's weights with that of the policy.
    - ``stream`` raises unless the digests match.
    - ``check_rollout`` rejects log-probabilities that differ from the scorer's by more than ``max_mismatch`` nats per token.

    Every completion has a seed, so runs are reproducible with the same engine on the same machine. vLLM uses its own random
    generators, so samples differ from those of the in-process sampler. In bfloat16, the other sequences in a batch affect
    rounding.
    """

    def __init__(self, max_mismatch: float) -> None:
        if max_mismatch <= 0:
            raise UserError(f"max_mismatch must be positive, got {max_mismatch}: check model.sampler")
        self.max_mismatch = max_mismatch
        self._max_model_len: int | None = None  # of the engine; None: no engine
        self._digest: str | None = None  # of the engine's weights, once verified

    @abstractmethod
    def _start(self, config: dict[str, Any], dtype: str) -> int:
        """Start an engine for the model, and return the maximum length of a prompt with its completion, in tokens."""

    @abstractmethod
    def _load(self, weights: Iterable[tuple[str, Tensor]]) -> str:
        """Send the weights, which may be iterated several times; return the digest of the engine's new weights."""

    @abstractmethod
    def _stream(self, requests: Sequence[SampleRequest], digest: str) -> Iterator[Completion]:
        """Yield completions from the engine, provided that its weights have this digest."""

    @property
    def engines(self) -> int:
        """Number of engines; each serves one training process."""
        return 1

    @property
    def _running(self) -> bool:
        """Whether an engine was started and is not known to be closed."""
        return self._max_model_len is not None

    def close(self) -> None:
        """Release the engine."""
        self._max_model_len = self._digest = None

    def check(self, policy: Policy) -> None:
        """Start the engine, send it the weights, and sample two tokens.

        Raises:
            UserError: There is no engine, there are fewer engines than training processes, or the engine cannot run this model.
        """
        if (processes := _ranks()) > self.engines:
            raise UserError(
                f"each of the {processes} training processes needs an engine, and {type(self).__name__} has {self.engines}: "
                f"list one rollout server per process in model.sampler.url (VLLMServerSampler), or lower trainer.devices"
            )
        self.sync(policy)
        list(self.stream([TWO_TOKENS]))

    def sync(self, policy: Policy) -> None:
        """Send the weights to the engine if they have changed.

        Raises:
            UserError: The engine is gone, or its new weights differ from the policy's.
        """
        if not self._running:
            self._digest = None
            self._max_model_len = self._start(model_config(policy), str(policy.lm.dtype).removeprefix("torch."))
        weights = PolicyWeights(policy.lm)
        wanted = weights_digest(tensor for _, tensor in weights)
        if self._digest == wanted:
            return
        self._digest = None
        arrived = self._load(weights)
        if arrived != wanted:
            raise UserError(
                f"the rollout engine has other weights than the policy after loading them (digest {arrived}, policy {wanted}): "
                f"vLLM may convert weights of the model type {policy.lm.config.model_type!r} on loading; nothing was sampled; "
                f"use InProcessSampler instead"
            )
        self._digest = wanted

    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        """Yield every completion as soon as it ends.

        Raises:
            RuntimeError: ``sync`` was not called or failed.
            UserError: A request exceeds the engine's maximum length, or the engine is gone.
        """
        if self._digest is None or self._max_model_len is None:
            raise RuntimeError("call sync(policy) before stream(requests)")
        for request in requests:
            tokens = len(request.prompt_ids) + request.params.max_new_tokens
            if tokens > self._max_model_len:
                raise UserError(
                    f"request {request.id!r} may take {tokens} tokens of prompt and completion, and the rollout engine allows "
                    f"{self._max_model_len}: lower data.max_tokens, or raise the engine's max_model_len if the model allows it"
                )
        yield from self._stream(requests, self._digest)


def _ranks() -> int:
    return torch.distributed.get_world_size() if _distributed() else 1


def this_rank() -> int:
    """Return the distributed rank of this training process; 0 if not distributed."""
    return torch.distributed.get_rank() if _distributed() else 0


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class PolicyWeights:
    """Iterates over a policy's weights by their names in the checkpoint format, with adapters merged; tied weights appear once.

    Each pass merges the weights again, one at a time, which avoids a second copy of the model.
    """

    def __init__(self, lm: PreTrainedModel) -> None:
        self._lm = lm

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and tensors, on the policy's device."""
        parameters = plain_names(self._lm)
        device = self._lm.device
        return ((name, tensor.detach().to(device)) for name, tensor in plain_weights(self._lm) if name in parameters)


def model_config(policy: Policy) -> dict[str, Any]:
    """Return the config of the policy's language model, as in its exported folder."""
    config: dict[str, Any] = policy.lm.config.to_dict()
    return config | {"architectures": [type(policy.lm).__name__], "dtype": str(policy.lm.dtype).removeprefix("torch.")}


def engine_gone(what: str, error: BaseException) -> UserError:
    """Build the error that ends a run because its engine died."""
    return UserError(
        f"{what} ({described(error)}): the run stops, and the unfinished rollout is discarded; repeat the command to resume "
        f"from the last checkpoint, if there is one"
    )

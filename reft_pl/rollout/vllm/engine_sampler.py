"""What both vLLM samplers share: weights are handed over when they have changed, and proven to have arrived."""

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
    """Base of samplers whose engine has a copy of the policy's weights.

    Three things keep stale weights out. ``sync`` compares the digest of the weights that the engine computes with to that of
    the policy; a stream is refused unless the two agreed; and a rollout is refused whose log-probabilities differ from the
    scorer's by more than ``max_mismatch`` nats a token.

    A seed belongs to one completion, so a run is repeated exactly by the same engine on the same machine; but vLLM draws with
    generators of its own: the samples are others than the in-process sampler's, and in bfloat16 what runs side by side shows in
    the rounding.
    """

    def __init__(self, max_mismatch: float) -> None:
        if max_mismatch <= 0:
            raise UserError(f"max_mismatch must be positive, got {max_mismatch}: check model.sampler")
        self.max_mismatch = max_mismatch
        self._max_model_len: int | None = None  # of the engine; None where there is none
        self._digest: str | None = None  # of the weights in the engine, as far as they are known to be whole

    @abstractmethod
    def _start(self, config: dict[str, Any], dtype: str) -> int:
        """Have an engine for the model; returns how many tokens prompt and completion may have together."""

    @abstractmethod
    def _load(self, weights: Iterable[tuple[str, Tensor]]) -> str:
        """Hand the weights over, which can be gone through several times; returns the digest of what the engine has then."""

    @abstractmethod
    def _stream(self, requests: Sequence[SampleRequest], digest: str) -> Iterator[Completion]:
        """Completions of the engine, which must have the weights of ``digest``."""

    @property
    def engines(self) -> int:
        """How many engines there are: each serves one training process."""
        return 1

    @property
    def _running(self) -> bool:
        """Whether there is an engine, as far as is known."""
        return self._max_model_len is not None

    def close(self) -> None:
        """Let the engine go."""
        self._max_model_len = self._digest = None

    def check(self, policy: Policy) -> None:
        """Start the engine, hand it the weights, and write two tokens with them.

        Raises:
            UserError: there is no engine, or not one for each training process, or it does not run this model.
        """
        if (processes := _ranks()) > self.engines:
            raise UserError(
                f"{processes} training processes need an engine each, and {type(self).__name__} has {self.engines}: list as "
                f"many addresses of rollout servers in model.sampler.url (VLLMServerSampler), or lower trainer.devices"
            )
        self.sync(policy)
        list(self.stream([TWO_TOKENS]))

    def sync(self, policy: Policy) -> None:
        """Hand the weights over if they have changed.

        Raises:
            UserError: the engine is gone, or has other weights than the policy afterwards.
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
                f"the rollout engine has other weights than the policy after they were handed over (digest {arrived}, policy "
                f"{wanted}): nothing was sampled with them; vLLM may load this kind of model ({policy.lm.config.model_type}) "
                f"otherwise than it is trained: sample with InProcessSampler"
            )
        self._digest = wanted

    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        """Yield every completion as soon as it has ended.

        Raises:
            RuntimeError: ``sync`` has not succeeded.
            UserError: a completion may become longer than the engine takes, or the engine is gone.
        """
        if self._digest is None or self._max_model_len is None:
            raise RuntimeError("call sync(policy) before stream(requests)")
        for request in requests:
            tokens = len(request.prompt_ids) + request.params.max_new_tokens
            if tokens > self._max_model_len:
                raise UserError(
                    f"request {request.id!r} may take {tokens} tokens of prompt and completion, and the rollout engine "
                    f"{self._max_model_len}: lower data.max_tokens, or raise the engine's max_model_len where the model goes "
                    f"that far"
                )
        yield from self._stream(requests, self._digest)


def _ranks() -> int:
    return torch.distributed.get_world_size() if _distributed() else 1


def this_rank() -> int:
    """Of this training process."""
    return torch.distributed.get_rank() if _distributed() else 0


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class PolicyWeights:
    """A policy's weights by the names of the checkpoint format, adapters merged; one that two names share comes once.

    They are made one after another, at each pass anew, so that merged ones are no second copy of the model.
    """

    def __init__(self, lm: PreTrainedModel) -> None:
        self._lm = lm

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor, on the policy's device."""
        parameters = plain_names(self._lm)
        device = self._lm.device
        return ((name, tensor.detach().to(device)) for name, tensor in plain_weights(self._lm) if name in parameters)


def model_config(policy: Policy) -> dict[str, Any]:
    """The config of the policy's language model as its exported folder would have it."""
    config: dict[str, Any] = policy.lm.config.to_dict()
    return config | {"architectures": [type(policy.lm).__name__], "dtype": str(policy.lm.dtype).removeprefix("torch.")}


def engine_gone(what: str, error: BaseException) -> UserError:
    """The sentence that ends a run whose engine has died."""
    return UserError(
        f"{what} ({described(error)}): the run stops here, and nothing was learned from the unfinished rollout; give the same "
        f"command again to go on from the run's last checkpoint, where it has one"
    )

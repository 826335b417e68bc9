"""Sampling in the training process, with the policy's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedModel

from reft_pl.errors import UserError, described
from reft_pl.models.architecture import restore_rotary, rotary_limit, text_config
from reft_pl.models.packed_architectures import runs_packed
from reft_pl.rollout.base import TWO_TOKENS, Sampler
from reft_pl.rollout.inprocess.acceleration import Acceleration
from reft_pl.rollout.inprocess.attention import sampling_attention
from reft_pl.rollout.inprocess.batch import ContinuousBatch
from reft_pl.rollout.inprocess.library_batch import LibraryBatch, serves_exactly
from reft_pl.types import Completion, SampleRequest

if TYPE_CHECKING:
    from reft_pl.models.policy import Policy, ValueHead


class InProcessSampler(Sampler):
    """Samples with the training process's own model: no extra dependency, nothing to synchronise after an update.

    It uses continuous batching over a fixed number of slots: a finished row leaves at once, and a waiting row takes its slot.
    A prompt is prefilled without padding, once for all its samples. Each row has separate positions, so models with
    absolute positions need no left padding. Architectures outside ``architectures.PACKED`` use the slower ``generate`` of
    transformers, with the same random numbers. On a CPU, large weights also have a packed copy during a rollout.

    Args:
        max_rows: Number of sequences decoded in parallel. More rows are faster, up to a point, and take more memory.
        prefill_tokens: Maximum number of prompt tokens per prefill pass; a longer prompt gets a separate pass.
        draft_tokens: Maximum number of tokens drafted ahead of a row by speculative decoding; 0 disables it. Samples are
            identical up to rounding for any value.
    """

    records_values = True

    def __init__(self, max_rows: int = 64, prefill_tokens: int = 2048, draft_tokens: int = 8) -> None:
        if max_rows < 1 or prefill_tokens < 1:
            raise UserError(f"max_rows and prefill_tokens must be positive, got {max_rows} and {prefill_tokens}")
        if draft_tokens < 0:
            raise UserError(f"draft_tokens must not be negative, got {draft_tokens}")
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        self.draft_tokens = draft_tokens
        self._lm: PreTrainedModel | None = None
        self._value_head: ValueHead | None = None
        self._cached: bool | None = None  # whether the KV cache of transformers works for this model; None: not checked yet

    def check(self, policy: Policy) -> None:
        """Sample two tokens from the policy.

        Raises:
            UserError: The sampler does not support the architecture.
        """
        self.sync(policy)
        try:
            list(self.stream([TWO_TOKENS]))
        except (UserError, FloatingPointError, TorchDynamoException):
            raise
        except Exception as error:
            kind = policy.lm.config.model_type
            raise UserError(
                f"the in-process sampler cannot run models of type {kind!r} ({described(error)}): choose another model"
            ) from error

    def sync(self, policy: Policy) -> None:
        """Keep a reference to the policy; its weights are read in place."""
        if self._lm is not policy.lm:
            self._cached = None
        self._lm = policy.lm
        self._value_head = policy.value_head if policy.value_kind == "shared" else None

    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        """Yield every completion as soon as it ends; the longest prompts start first.

        Raises:
            RuntimeError: ``sync`` has not been called.
            UserError: A completion may exceed the model's maximum length.
            FloatingPointError: The policy's logits are not finite.
        """
        if self._lm is None:
            raise RuntimeError("call sync(policy) before stream(requests)")
        for request in requests:
            _check_length(self._lm, request)
        packed = runs_packed(self._lm)
        batch = self._batch(self._lm, requests, packed)
        acceleration = Acceleration(self._lm, batch.max_rows, packed)
        while not batch.done:
            # Leave sampling mode before yielding: the caller may use the model between completions.
            with _sampling_mode(self._lm, packed, acceleration.compiles_attention), acceleration.applied():
                ended = batch.run_until_one_ends()
            yield from ended

    def _batch(self, lm: PreTrainedModel, requests: Sequence[SampleRequest], packed: bool) -> ContinuousBatch | LibraryBatch:
        value_head = self._value_head if any(request.params.record_values for request in requests) else None
        if packed:
            return ContinuousBatch(lm, requests, self.max_rows, self.prefill_tokens, self.draft_tokens, value_head)
        if self._cached is None:
            with _sampling_mode(lm, packed=False):
                self._cached = serves_exactly(lm, cached=True)
                if not self._cached and not serves_exactly(lm, cached=False):
                    raise UserError(
                        f"models of type {lm.config.model_type!r} cannot be sampled: log-probabilities from `generate` differ "
                        "from those of the model's forward pass; choose another model"
                    )
            _warn_of_library(lm.config.model_type, self._cached)
        return LibraryBatch(lm, requests, self.max_rows, value_head, self._cached)


def _check_length(lm: PreTrainedModel, request: SampleRequest) -> None:
    """Refuse requests beyond the model's positions, or beyond the length at which its rotary factors change.

    Raises:
        UserError: The completion may exceed the model's maximum length.
    """
    tokens = len(request.prompt_ids) + request.params.max_new_tokens
    positions = getattr(text_config(lm.config), "max_position_embeddings", None)
    if positions is not None and tokens - 1 > positions:  # the last token is never read
        raise UserError(
            f"request {request.id!r} may take {tokens} tokens of prompt and completion, but the model has only {positions} "
            "positions; lower max_tokens"
        )
    limit = rotary_limit(lm.config)
    if limit is not None and tokens > limit:
        raise UserError(
            f"request {request.id!r} may take {tokens} tokens of prompt and completion, but beyond {limit} tokens the model's "
            "rotary factors depend on the text's length, so samples cannot be scored; lower max_tokens"
        )


@cache
def _warn_of_library(kind: str, cached: bool) -> None:
    """Warn once that this architecture is sampled by the slower ``generate``."""
    how = "the KV cache and attention of transformers" if cached else "transformers and without a KV cache"
    rank_zero_warn(f"models of type {kind!r} are sampled with {how}, which is slower than the packed sampler")


@contextmanager
def _sampling_mode(lm: PreTrainedModel, packed: bool, native: bool = False) -> Iterator[None]:
    """Disable gradients and dropout, and use the engine's attention for a ``packed`` model; restore everything afterwards."""
    training = [module for module in lm.modules() if module.training]
    lm.eval()  # type: ignore[no-untyped-call]
    if rotary_limit(lm.config) is not None:
        restore_rotary(lm)
    try:
        # Not inference_mode: tensors that a model caches (rotary tables) must remain usable in training.
        with ExitStack() as blocks:
            blocks.enter_context(torch.no_grad())
            if packed:
                blocks.enter_context(sampling_attention(lm, native))
            yield
    finally:
        for module in training:
            module.training = True

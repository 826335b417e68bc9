"""Sampling in the trainer's own process, with the policy's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedModel

from reft_pl.errors import UserError, told
from reft_pl.models.architecture import restore_rotary, rotary_limit, text_config
from reft_pl.rollout.base import TWO_TOKENS, Sampler
from reft_pl.rollout.inprocess.acceleration import Acceleration
from reft_pl.rollout.inprocess.architectures import runs_packed
from reft_pl.rollout.inprocess.attention import sampling_attention
from reft_pl.rollout.inprocess.batch import ContinuousBatch
from reft_pl.rollout.inprocess.library_batch import LibraryBatch, serves_exactly
from reft_pl.types import Completion, SampleRequest

if TYPE_CHECKING:
    from reft_pl.models.policy import Policy, ValueHead


class InProcessSampler(Sampler):
    """Samples with the training process's own model: nothing to install, no second copy of the weights.

    Decoding runs on a batch of slots. A row that has ended leaves at once and a waiting one takes its place, prompts are
    prefilled without padding and once for all their samples, and each row has its own positions, so that models with absolute
    positions need no left padding. Architectures outside ``architectures.PACKED`` are sampled more slowly by the library's
    ``generate``, with the same random numbers.

    Args:
        max_rows: Sequences that are decoded side by side. More is faster, up to a point, and takes more memory.
        prefill_tokens: Prompt tokens that are read in one forward pass (a longer prompt has a pass to itself).
        draft_tokens: Tokens that may be guessed ahead of a row from what has been written so far, 0 for none. What is sampled
            does not depend on it, but for rounding.
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
        self._cached: bool | None = None  # whether the library's cache serves this model; None before it is needed

    def check(self, policy: Policy) -> None:
        """Write two tokens with the policy.

        Raises:
            UserError: its architecture is none that this sampler runs.
        """
        self.sync(policy)
        try:
            list(self.stream([TWO_TOKENS]))
        except (UserError, FloatingPointError, TorchDynamoException):
            raise
        except Exception as error:
            kind = policy.lm.config.model_type
            raise UserError(
                f"the in-process sampler cannot run models of the kind {kind!r} ({told(error)}): choose another model"
            ) from error

    def sync(self, policy: Policy) -> None:
        """Refer to the policy; its weights are read in place."""
        if self._lm is not policy.lm:
            self._cached = None
        self._lm = policy.lm
        self._value_head = policy.value_head if policy.value_kind == "shared" else None

    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        """Yield every completion as soon as it has ended; the longest prompts are begun first.

        Raises:
            RuntimeError: ``sync`` has not been called.
            UserError: a completion may become longer than the model can be.
            FloatingPointError: the policy's logits are not finite.
        """
        if self._lm is None:
            raise RuntimeError("call sync(policy) before stream(requests)")
        for request in requests:
            _check_length(self._lm, request)
        packed = runs_packed(self._lm)
        batch = self._batch(self._lm, requests, packed)
        acceleration = Acceleration(self._lm, batch.max_rows, packed)
        while not batch.done:
            # The model is in sampling mode only inside, never while the caller works on what was yielded.
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
                        f"models of the kind {lm.config.model_type!r} cannot be sampled: transformers generates with other "
                        "log-probabilities than the model's; choose another model"
                    )
            _warn_of_library(lm.config.model_type, self._cached)
        return LibraryBatch(lm, requests, self.max_rows, value_head, self._cached)


def _check_length(lm: PreTrainedModel, request: SampleRequest) -> None:
    """Refuse what has no position, or rotary factors that change on the way.

    Raises:
        UserError: the completion may become longer than the model can be.
    """
    tokens = len(request.prompt_ids) + request.params.max_new_tokens
    positions = getattr(text_config(lm.config), "max_position_embeddings", None)
    if positions is not None and tokens - 1 > positions:  # the last token is never read
        raise UserError(
            f"request {request.id!r} may take {tokens} tokens of prompt and completion, and the model has {positions} "
            "positions; lower max_tokens"
        )
    limit = rotary_limit(lm.config)
    if limit is not None and tokens > limit:
        raise UserError(
            f"request {request.id!r} may take {tokens} tokens of prompt and completion, and beyond {limit} the model's rotary "
            "factors depend on the length of the text, so that samples cannot be scored; lower max_tokens"
        )


@cache
def _warn_of_library(kind: str, cached: bool) -> None:
    """Warn once of slow sampling."""
    how = "the cache and attention of transformers" if cached else "transformers and without a cache"
    rank_zero_warn(f"models of the kind {kind!r} are sampled with {how}, which is slower than the sampler's own")


@contextmanager
def _sampling_mode(lm: PreTrainedModel, packed: bool, native: bool = False) -> Iterator[None]:
    """Disable gradients and dropout, and use the engine's attention for a ``packed`` model; restore all at the end."""
    training = [module for module in lm.modules() if module.training]
    lm.eval()  # type: ignore[no-untyped-call]
    if rotary_limit(lm.config) is not None:
        restore_rotary(lm)
    try:
        # Not inference_mode: what a model computes once and keeps (rotary tables) must remain usable in training.
        with ExitStack() as blocks:
            blocks.enter_context(torch.no_grad())
            if packed:
                blocks.enter_context(sampling_attention(lm, native))
            yield
    finally:
        for module in training:
            module.training = True

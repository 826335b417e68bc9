"""Sampling in the trainer's own process, with the policy's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedModel

from reft_pl.errors import UserError, told
from reft_pl.models.compilation import compiled_layers
from reft_pl.rollout.attention import sampling_attention
from reft_pl.rollout.base import TWO_TOKENS, Sampler
from reft_pl.rollout.compiled_sampling import compiled_sampling
from reft_pl.rollout.continuous import ContinuousBatch
from reft_pl.rollout.packed_weights import PackedWeights
from reft_pl.types import Completion, SampleRequest

if TYPE_CHECKING:
    from reft_pl.models.policy import Policy, ValueHead


class InProcessSampler(Sampler):
    """Samples with the training process's own model: nothing to install, no second copy of the weights.

    Decoding runs on a batch of slots. A row that has ended leaves at once and a waiting one takes its place, prompts are
    prefilled without padding and once for all their samples, and each row has its own positions, so that models with absolute
    positions need no left padding.

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
        value_head = self._value_head if any(request.params.record_values for request in requests) else None
        batch = ContinuousBatch(self._lm, requests, self.max_rows, self.prefill_tokens, self.draft_tokens, value_head)
        packed = PackedWeights(self._lm, batch.max_rows)
        while not batch.done:
            # The model is in sampling mode only inside, never while the caller works on what was yielded.
            with _sampling_mode(self._lm), packed.used():
                ended = batch.run_until_one_ends()
            yield from ended


def _check_length(lm: PreTrainedModel, request: SampleRequest) -> None:
    """Refuse what has no position, or would not be attended to as the model was made to.

    Raises:
        UserError: the completion may become longer than the model can be.
    """
    tokens = len(request.prompt_ids) + request.params.max_new_tokens
    positions = getattr(lm.config, "max_position_embeddings", None)
    if positions is not None and tokens - 1 > positions:  # the last token is never read
        raise UserError(
            f"request {request.id!r} may take {tokens} tokens of prompt and completion, and the model has {positions} "
            "positions; lower max_tokens"
        )
    window = getattr(lm.config, "sliding_window", None)
    if window is not None and tokens > window:
        raise UserError(
            f"request {request.id!r} may take {tokens} tokens of prompt and completion, more than the model's attention window "
            f"of {window}, which the in-process sampler does not slide; lower max_tokens"
        )


@contextmanager
def _sampling_mode(lm: PreTrainedModel) -> Iterator[None]:
    """No gradient, no dropout, and the attention of sampling; afterwards all is as it was."""
    training = [module for module in lm.modules() if module.training]
    lm.eval()  # type: ignore[no-untyped-call]
    try:
        # Not inference_mode: what a model computes once and keeps (rotary tables) must remain usable in training.
        with torch.no_grad(), sampling_attention(lm, native=bool(compiled_layers(lm))), compiled_sampling(lm):
            yield
    finally:
        for module in training:
            module.training = True

"""The policy: a decoder-only language model with an optional value function."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)
from transformers import PreTrainedModel

from reft_pl.models.activation_checkpointing import checkpoint_layers
from reft_pl.models.adapters import adapters_off, plain_weights
from reft_pl.models.architecture import restore_rotary, rotary_limit, text_config, trunk_of
from reft_pl.models.packed_architectures import shares_prompts
from reft_pl.models.shared_prompts import EAGER_NAME, FUSED_NAME, SharedPrompts, lay_out

ValueKind: TypeAlias = Literal["none", "shared", "separate"]
"""No value function; a head on the policy's trunk; a head on a separate trunk, initialized as a copy."""

VALUE_PARTS = ("value_head.", "value_trunk.")
"""Name prefixes of the value function's weights."""

_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Config names of the logit soft cap (Gemma, RecurrentGemma, xLSTM)."""


class Policy(nn.Module):
    """A causal language model split at its last hidden state.

    The split avoids full [B, T, V] logits: callers compute ``hidden_states``, select positions, and apply ``logits`` and
    ``state_values`` only to those.

    Args:
        lm: A decoder-only model of ``transformers`` with an LM head.
        value: Which value function to add. Its head is zero-initialized, so untrained values are 0.
        gradient_checkpointing: Recompute activations in the backward pass.
    """

    def __init__(self, lm: PreTrainedModel, value: ValueKind = "none", gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.lm = lm
        head = self.lm_head.weight
        # Stored as ints, because under ZeRO-3 the weights of a rank are empty between uses.
        self.vocab_size = int(head.shape[0])
        """Number of logits, which may exceed the tokenizer's vocabulary."""
        self.hidden_size = int(head.shape[1])
        """Input width of the LM head (OPT-350m projects its hidden states down to it)."""
        self.own_attention: str = lm.config._attn_implementation
        self.shares_prompts = shares_prompts(lm)
        """Whether the model can compute a prompt once for several responses."""
        self.value_kind: ValueKind = value
        self.value_trunk: nn.Module | None = copy.deepcopy(trunk_of(lm)) if value == "separate" else None
        self.value_head: ValueHead | None = None
        if value != "none":
            self.value_head = ValueHead(self.hidden_size, 1, dtype=torch.float32, device=lm.device)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        if gradient_checkpointing:
            checkpoint_layers(trunk_of(lm))
            if self.value_trunk is not None:
                checkpoint_layers(self.value_trunk)

    @property
    def lm_head(self) -> nn.Linear:
        """The output layer, [D] to [V]; its weight may be tied to the input embeddings."""
        head: nn.Linear = self.lm.get_output_embeddings()  # type: ignore[no-untyped-call]
        return head

    @property
    def embedding_rows(self) -> int:
        """Number of token ids that the model can both read and predict; read it only while the weights are gathered."""
        embeddings = self.lm.get_input_embeddings().get_parameter("weight")
        return min(self.vocab_size, int(embeddings.shape[0]))

    @property
    def positions(self) -> int | None:
        """Maximum sequence length in tokens, or None if the config sets none; see ``rotary_limit``."""
        bound: int | None = getattr(text_config(self.lm.config), "max_position_embeddings", None)
        limit = rotary_limit(self.lm.config)
        return bound if limit is None else limit - 1

    @property
    def shared_attention(self) -> str:
        """Name of the attention for shared prompts: eager if the model's own is."""
        return EAGER_NAME if self.own_attention == "eager" else FUSED_NAME

    @property
    def device(self) -> torch.device:
        """Device of the language model's weights."""
        return self.lm.device

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the last hidden states, after the final norm.

        Rows are first shifted flush left, so that padding only follows real tokens. Causal attention then needs no mask,
        positions count from 0 in every architecture (absolute, rotary, ALiBi), and the side of the padding does not matter. If
        rotary factors depend on the length, rows beyond ``rotary_limit`` run through the trunk in groups of equal length.

        Args:
            input_ids: [B, T] int64.
            attention_mask: [B, T] bool, true on real tokens, which are contiguous in each row.

        Returns:
            [B, T, D] in the layout of ``input_ids`` and the model's dtype; arbitrary finite values at padding.
        """
        _switch_attention(self.lm, self.own_attention)
        return _run_flush_left(trunk_of(self.lm), input_ids, attention_mask, rotary_limit(self.lm.config))

    def shared_hidden_states(self, layout: SharedPrompts) -> Tensor:
        """Compute the last hidden states of prompts and responses in one row, [N, D]; requires ``shares_prompts``.

        The layout and its attention stay in use until the next call of this or of ``hidden_states``, since a backward pass may
        recompute layers.
        """
        lay_out(layout)
        _switch_attention(self.lm, self.shared_attention)
        return _states(trunk_of(self.lm), layout.input_ids, layout.position_ids)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute next-token logits [..., V] from hidden states [..., D], in the model's dtype.

        They include the scaling and soft-capping that Cohere, Granite, Falcon-H1, Gemma and others apply after the LM head.
        """
        return self.capped(self.lm_head(hidden))

    def capped(self, scores: Tensor) -> Tensor:
        """Apply the architecture's logit scaling and soft-capping, if any, to the LM head's output [..., V]."""
        config = text_config(self.lm.config)
        scale = getattr(config, "lm_head_multiplier", None) or 1.0
        if config.model_type != "mpt":  # transformers ignores MPT's ``logit_scale``
            scale *= getattr(config, "logit_scale", None) or 1.0
        scaling = getattr(config, "logits_scaling", None) or 1.0
        scale = scale * scaling if config.model_type == "hyperclovax" else scale / scaling
        if scale != 1.0:
            scores = scores * scale
        cap = next((cap for cap in (getattr(config, name, None) for name in _CAPS) if cap), None)
        return torch.tanh(scores / cap) * cap if cap else scores

    def value_hidden_states(self, input_ids: Tensor, attention_mask: Tensor, hidden: Tensor) -> Tensor:
        """Return the value head's input [B * T, D]: ``hidden``, or the hidden states of the separate value trunk."""
        if self.value_trunk is None:
            return hidden
        _switch_attention(self.value_trunk, self.own_attention)
        return _run_flush_left(self.value_trunk, input_ids, attention_mask, rotary_limit(self.lm.config)).flatten(0, 1)

    def shared_value_states(self, layout: SharedPrompts, hidden: Tensor) -> Tensor:
        """Return the value head's input [N, D] for a layout; ``hidden`` is from ``shared_hidden_states``."""
        if self.value_trunk is None:
            return hidden
        _switch_attention(self.value_trunk, self.shared_attention)
        return _states(self.value_trunk, layout.input_ids, layout.position_ids)[0]

    def state_values(self, hidden: Tensor) -> Tensor:
        """Compute float32 values [...] from hidden states [..., D] of any dtype.

        Raises:
            ValueError: The policy has no value head.
        """
        if self.value_head is None:
            raise ValueError("this policy has no value head: create it with value='shared' or value='separate'")
        values: Tensor = self.value_head(hidden)
        return values.squeeze(-1)

    def value_parameters(self) -> dict[str, Tensor]:
        """Return the value function's own weights by name: ``value_head.*`` and, if separate, ``value_trunk.*``."""
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(VALUE_PARTS)}

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the language model's weights by name, with any adapters merged."""
        return plain_weights(self.lm)


class BasePolicy(Policy):
    """A policy with its adapters disabled: a view of the same weights, without a value function.

    Args:
        policy: The policy with adapters.
    """

    def __init__(self, policy: Policy) -> None:
        nn.Module.__init__(self)
        self.lm = policy.lm
        self.vocab_size = policy.vocab_size
        self.own_attention, self.shares_prompts = policy.own_attention, policy.shares_prompts
        self.value_kind = "none"
        self.value_trunk = self.value_head = None

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the last hidden states [B, T, D] with the adapters disabled; see ``Policy.hidden_states``."""
        with adapters_off(self.lm):
            return super().hidden_states(input_ids, attention_mask)

    def shared_hidden_states(self, layout: SharedPrompts) -> Tensor:
        """Compute the last hidden states [N, D] with the adapters disabled; see ``Policy.shared_hidden_states``."""
        with adapters_off(self.lm):
            return super().shared_hidden_states(layout)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the language model's weights by name, without adapters."""
        return plain_weights(self.lm, adapters=False)


class ValueHead(nn.Linear):
    """A linear layer that computes in float32, whatever the dtype of its weights and input."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., D] to values [..., 1] in float32."""
        return F.linear(hidden.float(), self.weight.float(), self.bias.float())


def _run_flush_left(trunk: nn.Module, input_ids: Tensor, attention_mask: Tensor, limit: int | None) -> Tensor:
    mask = attention_mask.bool()
    lengths = mask.sum(dim=1)
    if bool(mask[:, 0].all()) and not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return _run(trunk, input_ids, lengths, limit)
    order = torch.argsort(~mask, dim=1, stable=True)
    hidden = _run(trunk, input_ids.gather(1, order), lengths, limit)
    back = torch.argsort(order, dim=1)
    return hidden.gather(1, back.unsqueeze(-1).expand_as(hidden))


def _run(trunk: nn.Module, input_ids: Tensor, lengths: Tensor, limit: int | None) -> Tensor:
    """Compute last hidden states [B, T, D] of flush-left rows with ``lengths`` [B] real tokens."""
    if limit is None:
        return _states(trunk, input_ids)
    width = input_ids.shape[1]
    widths = lengths.clamp(min=min(limit, width))  # rows of equal length share rotary factors
    rows, parts = [], []
    for length in sorted(set(widths.tolist())):
        rows.append((widths == length).nonzero().squeeze(1))
        restore_rotary(trunk)
        parts.append(F.pad(_states(trunk, input_ids[rows[-1], :length]), (0, 0, 0, width - length)))
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _states(trunk: nn.Module, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
    positions = {} if position_ids is None else {"position_ids": position_ids}
    hidden: Tensor = trunk(input_ids=input_ids, use_cache=False, **positions).last_hidden_state
    return hidden


def _switch_attention(model: nn.Module, name: str) -> None:
    trunk = cast("PreTrainedModel", model)
    if trunk.config._attn_implementation != name:
        trunk.set_attn_implementation(name)

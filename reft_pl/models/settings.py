"""What a run may decide about its policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from reft_pl.errors import UserError
from reft_pl.models.dtype import NumberFormat, fast_format


@dataclass
class LoRASettings:
    """Train low-rank adapters beside frozen weights, in place of the weights (LoRA, arXiv 2106.09685).

    Args:
        r: Rank of each adapter: r * (inputs + outputs) numbers are trained for a layer, in place of inputs * outputs.
        alpha: What an adapter adds counts alpha / r times.
        dropout: Of the adapters' inputs, in SFT; PPO scores and updates without any dropout.
        target_modules: Which linear layers get one, by the ends of their names ([q_proj, v_proj]); all-linear is every one of
            the trunk.
        export: merged writes an ordinary model, weights and adapters in one; adapter writes the adapters alone, which name
            their base and load beside it.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    export: Literal["merged", "adapter"] = "merged"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.r, self.alpha) < 1 or not 0 <= self.dropout < 1 or not self.target_modules:
            raise UserError(
                "r and alpha must be at least 1, dropout at least 0 and less than 1, and target_modules name something: "
                "check model.policy.lora"
            )


@dataclass
class PolicySettings:
    """Where the policy comes from and how it computes.

    Args:
        init_from: Hub id, or a folder that ``transformers`` can load: a base model, or the ``hf/`` folder of a former run.
        from_scratch: Take only the configuration and the tokenizer of ``init_from``, and draw the weights from the run's seed.
        dtype: Number format of weights and activations; auto is bfloat16 where the machine has instructions for it, else
            float32, and what a run began with where it goes on. Log-probabilities, values and losses are float32 either way,
            and the default optimizer, MasterAdamW, keeps float32 copies of bfloat16 weights. Pure bfloat16, where learning
            rates below some 1e-5 are rounded away, is ``--model.optimizer torch.optim.AdamW``.
        gradient_checkpointing: Recompute each layer's activations in the backward pass: less memory, a third more time.
        attention: Attention implementation of ``transformers``: sdpa (eager for architectures without it), eager, or
            flash_attention_2 where installed.
        compile: Compile the layers with ``torch.compile``, for all sizes of batches (a minute or so at the start): faster, with
            less memory, and the same but for rounding, resumed runs included. Not with ZeRO-3.
        trust_remote_code: Run the Python code that ``init_from`` comes with, for an architecture or a tokenizer that
            ``transformers`` does not have. It runs with your rights, so read it first. Off, such a model is refused.
        lora: Train low-rank adapters and leave the weights as they are; None trains the weights.
    """

    init_from: str
    from_scratch: bool = False
    dtype: Literal["auto"] | NumberFormat = "auto"
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    compile: bool = False
    trust_remote_code: bool = False
    lora: LoRASettings | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch names it, on this machine."""
        dtype = fast_format() if self.dtype == "auto" else self.dtype
        return torch.bfloat16 if dtype == "bfloat16" else torch.float32

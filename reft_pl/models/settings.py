"""Settings of the policy and its LoRA adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from reft_pl.errors import UserError
from reft_pl.models.dtype import Dtype, fastest_dtype


@dataclass
class LoRASettings:
    """Train low-rank adapters instead of the weights, which stay frozen (LoRA, arXiv 2106.09685).

    Args:
        r: Rank of each adapter: a layer trains r * (inputs + outputs) parameters instead of inputs * outputs.
        alpha: Scale: an adapter's output is multiplied by alpha / r.
        dropout: Dropout on the adapters' inputs in SFT and online self-training; PPO scores and updates without dropout.
        target_modules: Linear layers to adapt, by name suffix ([q_proj, v_proj]); all-linear adapts all of the trunk's.
        export: merged writes an ordinary model with the adapters merged; adapter writes only the adapters, which name their
            base model and load onto it.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    export: Literal["merged", "adapter"] = "merged"

    def __post_init__(self) -> None:
        """Check the ranges of all settings.

        Raises:
            UserError: A value is out of range, or ``target_modules`` is empty.
        """
        if min(self.r, self.alpha) < 1 or not 0 <= self.dropout < 1 or not self.target_modules:
            raise UserError(
                "r and alpha must be at least 1, dropout must be at least 0 and less than 1, and target_modules must not be "
                "empty: check model.policy.lora"
            )


@dataclass
class PolicySettings:
    """Source of the policy and how it computes.

    Args:
        init_from: Hub id, or a folder that ``transformers`` can load: a base model, or the ``hf/`` folder of an earlier run.
        from_scratch: Take only the configuration and tokenizer of ``init_from``, and draw the weights from the run's seed.
        dtype: Dtype of weights and activations. auto is bfloat16 if the machine has instructions for it, else float32; a
            resumed run keeps its dtype. Log-probabilities, values and losses are always float32. The default optimizer,
            MasterAdamW, keeps float32 copies of bfloat16 weights. Use ``--model.optimizer torch.optim.AdamW`` for pure
            bfloat16, which rounds away updates at learning rates below about 1e-5.
        gradient_checkpointing: Recompute each layer's activations in the backward pass: less memory, a third more time.
        attention: Attention implementation of ``transformers``: sdpa (eager for architectures without it), eager, or
            flash_attention_2 if installed.
        compile: Compile the layers with ``torch.compile`` for all batch sizes (about a minute at the start): faster, less
            memory, and identical results up to rounding, in resumed runs too. Not supported with ZeRO-3.
        trust_remote_code: Run the Python code shipped with ``init_from``, for an architecture or tokenizer that
            ``transformers`` lacks. The code runs with your permissions, so read it first. If false, such a model is rejected.
        lora: Train low-rank adapters and freeze the weights; null trains the weights.
    """

    init_from: str
    from_scratch: bool = False
    dtype: Literal["auto"] | Dtype = "auto"
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    compile: bool = False
    trust_remote_code: bool = False
    lora: LoRASettings | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as a torch dtype, with auto resolved for this machine."""
        dtype = fastest_dtype() if self.dtype == "auto" else self.dtype
        return torch.bfloat16 if dtype == "bfloat16" else torch.float32

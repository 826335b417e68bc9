"""What a run may decide about its policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass
class PolicySettings:
    """Where the policy comes from and how it computes.

    Args:
        init_from: Hub id, or a folder that ``transformers`` can load: a base model, or the ``hf/`` folder of a former run.
        from_scratch: Take only the configuration and the tokenizer of ``init_from``, and draw the weights from the run's seed.
        dtype: Number format of weights and activations. Log-probabilities, values and losses are float32 either way, and the
            default optimizer, MasterAdamW, keeps float32 copies of bfloat16 weights. Pure bfloat16, where learning rates below
            some 1e-5 are rounded away, is ``--model.optimizer torch.optim.AdamW``.
        gradient_checkpointing: Recompute each layer's activations in the backward pass: less memory, a third more time.
        attention: Attention implementation of ``transformers``: sdpa, eager, or flash_attention_2 where installed.
    """

    init_from: str
    from_scratch: bool = False
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = False
    attention: str = "sdpa"

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch names it."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

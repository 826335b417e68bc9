"""Estimate a training run's memory on each GPU, by part and by phase, from shapes alone.

Weights, gradients, optimizer state and the reference model are computed from parameter counts, activations from what autograd
saves, and logits and the KV cache from their shapes. ``OVERHEAD`` is a flat allowance for the CUDA context and heap
fragmentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

import torch
from transformers import PreTrainedConfig

from reft_pl.models.activations import activations, empty_model
from reft_pl.models.optim import bucket_elements
from reft_pl.models.scoring import CHUNK_LOGITS
from reft_pl.models.settings import PolicySettings

OVERHEAD = 3 * 2**29
"""Allowance for CUDA context, library workspaces and fragmentation: 1.5 GiB, not measured."""

ZERO_BUCKET = 200_000_000
"""Elements in each of DeepSpeed's two communication buckets."""


@dataclass(frozen=True)
class Run:
    """The settings that determine a run's memory.

    Args:
        policy: Model and dtype.
        max_tokens: Length of the longest sequence, in tokens.
        micro_batch_tokens: Upper bound on rows times longest row of a micro-batch.
        sequences: Sequences per optimizer step on one GPU.
        annotated: Annotated solutions per optimizer step on one GPU, beside these sequences.
        cache_rows: Sequences sampled in parallel on one GPU; 0 if the sampler manages separate memory.
        draft_tokens: Maximum tokens drafted per sequence in speculative decoding.
        reference: Whether a frozen reference copy of the model exists.
        teacher: Parameters of a reference that is another model than the policy's start.
        reference_offloaded: Whether the reference stays in host memory except while scoring.
        value_trunk: Whether the value function has a separate trunk.
        rollouts: Whether the run trains on scored samples of the policy.
        optimizer: ``master`` (float32 copies and two moments), ``plain`` (two moments in the weights' dtype) or ``none``.
        optimizer_offloaded: Whether the optimizer state is in host memory.
        gpus: Number of GPUs.
        zero: ZeRO stage, 0 for none.
        averaged: Whether a float32 average of the weights is kept; validation then holds a second copy of the weights.
        replicated: Whether DistributedDataParallel averages the gradients, in additional buckets.
        gpu: False for CPU ranks, which have no CUDA context and reduce logits in small blocks.
    """

    policy: PolicySettings
    max_tokens: int
    micro_batch_tokens: int
    sequences: int
    cache_rows: int
    draft_tokens: int = 0
    annotated: int = 0
    reference: bool = False
    teacher: int | None = None
    reference_offloaded: bool = False
    value_trunk: bool = False
    rollouts: bool = False
    optimizer: str = "master"
    optimizer_offloaded: bool = False
    gpus: int = 1
    zero: int = 0
    averaged: bool = False
    replicated: bool = False
    gpu: bool = True

    @property
    def micro_rows(self) -> int:
        """Maximum-length sequences that fit into a micro-batch."""
        return min(max(self.sequences, self.annotated), max(1, self.micro_batch_tokens // self.max_tokens))

    @property
    def micro_batches(self) -> int:
        """Micro-batches per optimizer step if every sequence has maximum length."""
        return ceil(self.sequences / self.micro_rows) + ceil(self.annotated / self.micro_rows)


@dataclass
class Estimate:
    """Estimated bytes on one GPU.

    Args:
        parameters: Parameter count, value trunk included.
        trained: Trainable parameter count.
        parts: Bytes by part.
        phases: For each training phase, the parts allocated at its peak.
        host: Bytes of host memory per GPU, by part.
    """

    parameters: int
    trained: int
    parts: dict[str, int] = field(default_factory=dict)
    phases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    host: dict[str, int] = field(default_factory=dict)

    def total(self, phase: str) -> int:
        """Return the peak bytes of a phase."""
        return sum(self.parts.get(part, 0) for part in self.phases[phase])

    @property
    def peak(self) -> str:
        """The phase with the highest peak."""
        return max(self.phases, key=self.total)


def estimate(config: PreTrainedConfig, run: Run) -> Estimate:
    """Estimate a run's memory without loading or drawing any weights.

    Args:
        config: The model's configuration.
        run: The settings that determine memory.
    """
    policy, size = run.policy, run.policy.torch_dtype.itemsize
    lm = empty_model(config, policy.torch_dtype, policy.lora, policy.attention)
    text = config.get_text_config()
    parameters = sum(p.numel() for p in lm.parameters())
    trained = sum(p.numel() for p in lm.parameters() if p.requires_grad)
    largest = max(p.numel() for p in lm.parameters() if p.requires_grad)
    acts = activations(lm, run.micro_rows, run.max_tokens)
    trunks = 2 if run.value_trunk else 1
    made = Estimate(parameters * trunks, trained * trunks)

    def shared(stage: int, elements: int) -> int:
        return ceil(elements / run.gpus) if run.zero >= stage else elements

    weights = made.parameters * size
    chunk = min(run.micro_rows * run.max_tokens, max(1, CHUNK_LOGITS // text.vocab_size)) * text.vocab_size
    head = 2 * run.micro_rows * run.max_tokens * text.hidden_size * size  # hidden states at actions and their gradients
    moments = shared(1, made.trained)
    parts = made.parts
    parts["overhead"] = OVERHEAD if run.gpu else 0
    parts["weights"] = shared(3, made.parameters) * size
    parts["gathered weights"] = weights - parts["weights"]
    parts["gathered layer"] = 2 * weights // max(1, len(acts.layers)) if run.zero == 3 else 0
    state = {
        "master weights": moments * 4 if run.optimizer == "master" and (size < 4 or run.optimizer_offloaded) else 0,
        "optimizer moments": {"master": 8, "plain": 2 * size, "none": 0}[run.optimizer] * moments,
    }
    (made.host if run.optimizer_offloaded else parts).update(state)
    if run.optimizer_offloaded and run.zero:  # DeepSpeed still keeps master weights on the GPU
        parts["master weights"] = state["master weights"]
    parts["gradients"] = shared(2, made.trained) * size
    parts["communication buckets"] = made.trained * size if run.replicated else 2 * size * ZERO_BUCKET * (run.zero > 0)
    parts |= {"weight average": 4 * made.trained, "weights set aside": made.trained * size} if run.averaged else {}
    if run.reference:
        parts["reference"] = (run.teacher or parameters) * size
        if run.reference_offloaded:
            made.host["reference"] = parts["reference"]
    parts["activations"] = trunks * acts.kept(policy.gradient_checkpointing) + head
    # Logits and their gradient, plus four float32 tensors of that size on a GPU; or the backward pass of one layer.
    logits = chunk * (2 * size + (16 if run.gpu else 0))
    parts["backward work space"] = max(logits, acts.largest_layer) + largest * size
    parts["scoring work space"] = chunk * (size + (8 if run.gpu else 0)) + acts.largest_layer
    bucket = max(largest, bucket_elements("cuda" if run.gpu else "cpu"))
    parts["step work space"] = 0 if run.optimizer_offloaded else 4 * min(moments, bucket)
    parts["KV cache"] = run.cache_rows * run.max_tokens * _cache_bytes_a_token(config, size)
    drawn = run.cache_rows * (2 if run.draft_tokens else 1)  # at most as many drafted tokens as rows, possibly all in one row
    scores = run.cache_rows * (1 + run.draft_tokens) * text.num_attention_heads * run.max_tokens * (2 * size + 4)
    parts["sampling work space"] = drawn * text.vocab_size * (size + 12) + scores
    standing: tuple[str, ...] = (
        "overhead", "weights", "master weights", "optimizer moments", "communication buckets", "weight average"
    )  # fmt: skip
    if not run.reference_offloaded:
        standing = (*standing, "reference")
    phases = made.phases
    phases["sampling"] = (*standing, "gathered weights", "KV cache", "sampling work space", "weights set aside")
    if run.rollouts:
        phases["scoring"] = (*dict.fromkeys((*standing, "reference")), "gathered weights", "scoring work space")
    phases["update"] = (*standing, "gathered layer", "gradients", "activations", "backward work space")
    phases["optimizer step"] = (*standing, "gradients", "step work space")
    return made


def parameters_of(config: PreTrainedConfig) -> int:
    """Return the number of parameters of a language model."""
    return sum(p.numel() for p in empty_model(config, torch.float32).parameters())


def _cache_bytes_a_token(config: PreTrainedConfig, size: int) -> int:
    """Return the bytes of keys and values that one token takes in all layers."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return 2 * int(text.num_hidden_layers) * int(kv_heads) * int(width) * size

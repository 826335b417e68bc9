"""Memory of a training run on each GPU, by part and by phase, from shapes alone.

What is computed: weights, gradients, optimizer states and reference from the number of parameters; activations as autograd
keeps them; logits and the cache of keys and values from their shapes. What is not: the CUDA context and what an allocator loses
to fragments, for which ``OVERHEAD`` stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from transformers import PreTrainedConfig

from reft_pl.models.activations import activations, empty_model
from reft_pl.models.optim import bucket_elements
from reft_pl.models.scoring import CHUNK_LOGITS
from reft_pl.models.settings import PolicySettings

OVERHEAD = 3 * 2**29
"""CUDA context, library workspaces, fragments: 1.5 GiB, an allowance that nobody measured here."""

ZERO_BUCKET = 200_000_000
"""Elements of DeepSpeed's communication buckets, of which there are two."""


@dataclass(frozen=True)
class Run:
    """What decides a run's memory.

    Args:
        policy: Model and precision.
        max_tokens: Tokens of the longest sequence.
        micro_batch_tokens: Bound on rows times longest row of a micro-batch.
        sequences: Sequences of an optimizer step on one GPU, or of a rollout where that decides the cache.
        cache_rows: Sequences that are sampled side by side on one GPU; 0 where the sampler has memory of its own.
        draft_tokens: Tokens that the sampler may guess ahead of each of them.
        reference: Whether there is a second copy of the model to compare with.
        reference_offloaded: Whether it stays in the computer's memory but for scoring.
        value_trunk: Whether values have a trunk of their own.
        rollouts: Whether the policy's samples are scored and learned from.
        optimizer: ``master`` for float32 copies and two moments, ``plain`` for two moments in the weights' format, ``none``.
        optimizer_offloaded: Whether that is in the computer's memory.
        gpus: Number of GPUs.
        zero: Stage of ZeRO, 0 for none.
        replicated: Whether gradients are averaged by DistributedDataParallel, in buckets of its own.
        gpu: False for CPU ranks, which have no context, and reduce logits in small blocks.
    """

    policy: PolicySettings
    max_tokens: int
    micro_batch_tokens: int
    sequences: int
    cache_rows: int
    draft_tokens: int = 0
    reference: bool = False
    reference_offloaded: bool = False
    value_trunk: bool = False
    rollouts: bool = False
    optimizer: str = "master"
    optimizer_offloaded: bool = False
    gpus: int = 1
    zero: int = 0
    replicated: bool = False
    gpu: bool = True

    @property
    def micro_rows(self) -> int:
        """Longest sequences that a micro-batch holds at most."""
        return min(self.sequences, max(1, self.micro_batch_tokens // self.max_tokens))

    @property
    def micro_batches(self) -> int:
        """Micro-batches of an optimizer step at most, with every sequence of the greatest length."""
        return ceil(self.sequences / self.micro_rows)


@dataclass
class Estimate:
    """Bytes on one GPU.

    Args:
        parameters: Numbers in the model, value trunk included.
        trained: Those of them that are trained.
        parts: Bytes by part.
        phases: For each phase of training the names of the parts that stand at its height.
        host: Bytes in the computer's memory for each GPU, by part.
    """

    parameters: int
    trained: int
    parts: dict[str, int] = field(default_factory=dict)
    phases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    host: dict[str, int] = field(default_factory=dict)

    def total(self, phase: str) -> int:
        """Bytes at the height of a phase."""
        return sum(self.parts.get(part, 0) for part in self.phases[phase])

    @property
    def peak(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.total)


def estimate(config: PreTrainedConfig, run: Run) -> Estimate:
    """Expected memory of a run.

    Args:
        config: The model's configuration; no weights are loaded or drawn.
        run: The settings.
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
    head = 2 * run.micro_rows * run.max_tokens * text.hidden_size * size  # states at actions, and their gradient
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
    if run.optimizer_offloaded and run.zero:  # DeepSpeed keeps its own on the GPU
        parts["master weights"] = state["master weights"]
    parts["gradients"] = shared(2, made.trained) * size
    parts["communication buckets"] = made.trained * size if run.replicated else 2 * size * ZERO_BUCKET * (run.zero > 0)
    if run.reference:
        parts["reference"] = parameters * size
        if run.reference_offloaded:
            made.host["reference"] = parts["reference"]
    parts["activations"] = trunks * acts.kept(policy.gradient_checkpointing) + head
    # Logits and their gradient, and on a GPU four float32 tensors of that size beside; or a layer on its way back.
    logits = chunk * (2 * size + (16 if run.gpu else 0))
    parts["backward work space"] = max(logits, acts.largest_layer) + largest * size
    parts["scoring work space"] = chunk * (size + (8 if run.gpu else 0)) + acts.largest_layer
    bucket = max(largest, bucket_elements("cuda" if run.gpu else "cpu"))
    parts["step work space"] = 0 if run.optimizer_offloaded else 4 * min(moments, bucket)
    parts["KV cache"] = run.cache_rows * run.max_tokens * _cache_bytes_a_token(config, size)
    drawn = run.cache_rows * (2 if run.draft_tokens else 1)  # as many guesses as rows, at most, but all of them in one row
    scores = run.cache_rows * (1 + run.draft_tokens) * text.num_attention_heads * run.max_tokens * (2 * size + 4)
    parts["sampling work space"] = drawn * text.vocab_size * (size + 12) + scores
    standing: tuple[str, ...] = ("overhead", "weights", "master weights", "optimizer moments", "communication buckets")
    if not run.reference_offloaded:
        standing = (*standing, "reference")
    phases = made.phases
    phases["sampling"] = (*standing, "gathered weights", "KV cache", "sampling work space")
    if run.rollouts:
        phases["scoring"] = (*dict.fromkeys((*standing, "reference")), "gathered weights", "scoring work space")
    phases["update"] = (*standing, "gathered layer", "gradients", "activations", "backward work space")
    phases["optimizer step"] = (*standing, "gradients", "step work space")
    return made


def _cache_bytes_a_token(config: PreTrainedConfig, size: int) -> int:
    """Keys and values of all layers."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return 2 * int(text.num_hidden_layers) * int(kv_heads) * int(width) * size

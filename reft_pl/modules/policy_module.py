"""Base of SFT, PPO and online self-training: train a policy, and evaluate it greedily."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from reft_pl.data.batching import collate
from reft_pl.evaluation.model_card import model_card
from reft_pl.evaluation.top1 import Top1
from reft_pl.formats.answers import is_correct
from reft_pl.models.adapters import merge
from reft_pl.models.base_model_metadata import inherited_metadata
from reft_pl.models.export import export_folder
from reft_pl.models.micro_batches import split, take
from reft_pl.models.policy import ValueKind
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.frozen_base import FrozenBase
from reft_pl.modules.solver import Solver
from reft_pl.modules.stage_module import MicroBatches, StageModule
from reft_pl.rl.losses import token_cross_entropy
from reft_pl.rl.masks import token_mean
from reft_pl.rollout.base import Sampler
from reft_pl.sandbox.base import Sandbox
from reft_pl.types import Problem, TokenBatch

EXAMPLE = Problem("example", "A box holds 12 pencils. How many pencils do 4 such boxes hold?", 48.0)
"""The question that illustrates the prompt format in exported folders; it is in no dataset."""


class PolicyModule(StageModule):
    """Base of the stages that train a policy on problems. Subclasses implement ``training_step``.

    Args:
        policy: The model to train and its dtype.
        sampler: Generates completions; None is the in-process sampler.
        sandbox: Runs the programs in completions; None is confined CPython.
        **kwargs: Settings of ``StageModule``.
    """

    value_kind: ValueKind = "none"
    validation_figures = ("val/top1",)

    def __init__(
        self, policy: PolicySettings, sampler: Sampler | None = None, sandbox: Sandbox | None = None, **kwargs: Any
    ) -> None:
        super().__init__(policy, **kwargs)
        self.solver = Solver(self, sampler, sandbox)
        self.top1 = Top1()
        self.frozen_base = FrozenBase(policy)
        self.strict_loading = not self.frozen_base.exists  # checkpoints of adapters lack their base

    def configure_model(self) -> None:
        """Load the policy once, and record the base of its adapters while the weights are whole."""
        if not hasattr(self, "policy"):
            self.policy = self.solver.load(self.value_kind)
            self.frozen_base.record(self.policy)

    @property
    def weights(self) -> str:
        """Digest of the policy's current weights, which every figure in ``results.json`` names."""
        return self.solver.weights

    # ---- learning

    @abstractmethod
    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Learn from one batch of problems."""

    def annotated(self, problems: Sequence[Problem]) -> TokenBatch:
        """Collate the annotated solutions; the action mask selects the target tokens, [B, T]."""
        examples = self.problems.examples(problems)
        sequences, prompts = [e.ids for e in examples], [e.prompt_length for e in examples]
        return collate(sequences, prompts, self.problems.codec.pad_id).to(self.device)

    def cross_entropy(self, tokens: TokenBatch, weight: float = 1.0) -> MicroBatches:
        """Build micro-batch losses that sum to ``weight`` times the mean cross-entropy over the action tokens of all ranks."""
        n_tokens = self.ranks.share(int(tokens.action_mask.sum()))

        def loss(rows: Tensor) -> Tensor:
            micro = take(tokens, rows)
            scores = score(self.policy, micro, detach_values=True)
            losses = token_cross_entropy(scores.logprobs, micro.action_mask)
            return weight * token_mean(losses, micro.action_mask, n_tokens) + _without_weight(scores.values)

        return [partial(loss, rows) for rows in split(tokens, self.micro_batch_tokens)]

    def idle_loss(self) -> Tensor:
        """Pass two tokens through the policy and its value function, with weight 0."""
        two = torch.full((1, 2), self.problems.codec.eos_id, device=self.device)
        scores = score(self.policy, TokenBatch(two, two >= 0, torch.tensor([[True, False]], device=self.device)))
        return 0.0 * scores.logprobs.sum() + _without_weight(scores.values)

    def used_in_parts(self) -> list[nn.Parameter]:
        """Return the LM head, which computes logits in chunks of positions."""
        return list(self.policy.lm_head.parameters())

    # ---- greedy evaluation

    def validation_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Log greedy Top-1 on held-out questions."""
        self.top1.update([is_correct(sample) for sample in self.solver.greedy(batch)])
        self.log("val/top1", self.top1, on_epoch=True, batch_size=len(batch), prog_bar=True)

    def test_step(self, batch: list[Problem], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Solve a batch of a test set greedily."""
        self.solver.test(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Write Top-1 of each test set to the log, ``results.json`` and ``predictions/``."""
        self.solver.report_test()

    def on_test_start(self) -> None:
        """Merge the adapters: a test measures the exported weights, and in bfloat16 merging rounds them."""
        merge(self.policy.lm)

    def on_validation_start(self) -> None:
        """Merge the adapters, except when validation interrupts training."""
        super().on_validation_start()
        if self.trainer.state.fn != TrainerFn.FITTING:
            merge(self.policy.lm)

    def teardown(self, stage: str) -> None:
        """Stop the processes of sandbox and sampler."""
        self.solver.close()

    # ---- checkpoints and export

    def kept(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop the frozen weights under adapters: a checkpoint need not repeat ``init_from``."""
        parameters = self.named_parameters(remove_duplicate=False)  # a tied head has a second name
        frozen = {name for name, parameter in parameters if not parameter.requires_grad}
        return {name: tensor for name, tensor in state.items() if name not in frozen}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the stage and the base of the adapters."""
        super().on_save_checkpoint(checkpoint)
        self.frozen_base.mark(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another stage or model, or adapters of another base."""
        super().on_load_checkpoint(checkpoint)
        self.frozen_base.check(checkpoint, self.trainer.ckpt_path)

    def write_export(self, folder: Path, weights: bool = True) -> None:
        """Write the policy, its prompt format and its model card."""
        codec, settings = self.problems.codec, self.policy_settings
        description = {
            "stage": self.stage,
            "base": settings.init_from,
            "from_scratch": settings.from_scratch,
            **codec.description(),
            "weights": self.weights if weights else "",
            **self.frozen_base.description(),
            "inherited": {} if settings.from_scratch else inherited_metadata(settings.init_from),
            "example": {"question": EXAMPLE.question, "prompt": codec.prompt_text(EXAMPLE)},
        }
        card = model_card(Path(self.trainer.default_root_dir), description)
        export_folder(
            self.policy,
            codec.tokenizer,
            folder,
            description,
            str(card),
            self.frozen_base.adapter_of,
            weights,
            stop_ids=codec.stop_ids,
            unused_ids=codec.vocabulary.unused(self.policy.vocab_size),
        )


def _without_weight(values: Tensor | None) -> Tensor | float:
    """Return 0 with the value function in its graph: in a pass, ranks exchange the gradients of all weights."""
    return 0.0 if values is None else 0.0 * values.sum()

"""What SFT, PPO and self-training share: a policy that solves problems and is trained to solve more."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from reft_pl.data.batching import collate
from reft_pl.errors import UserError
from reft_pl.evaluation.model_card import model_card
from reft_pl.models.adapters import merge
from reft_pl.models.base_model_metadata import inherited_metadata
from reft_pl.models.export import export_folder
from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.micro_batches import split, take
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.policy import BasePolicy
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.schedule import Schedule
from reft_pl.modules.solver_module import SolverModule
from reft_pl.modules.stage_module import MicroBatches, StageModule
from reft_pl.rl.losses import token_cross_entropy
from reft_pl.rl.masks import token_mean
from reft_pl.rollout.base import Sampler
from reft_pl.sandbox.base import Sandbox
from reft_pl.types import Problem, TokenBatch

EXAMPLE = Problem("example", "A box holds 12 pencils. How many pencils do 4 such boxes hold?", 48.0)
"""The question that shows the prompt form in exported folders; no dataset has it."""


class PolicyModule(SolverModule, StageModule):
    """Base of the stages that train a policy on problems. Subclasses write ``training_step``.

    Args:
        policy: The model to train and the precision to train it in.
        optimizer: Makes the optimizer from the parameters.
        schedule: How the learning rate moves.
        gradient_clip_norm: Global norm to which gradients are clipped.
        micro_batch_tokens: Bound on rows times longest row of what goes through the model at once. It decides memory and,
            but for rounding, not results (``StageModule.update``).
        sampler: Writes completions; None is the in-process sampler.
        sandbox: Runs the programs in them; None is confined CPython.
        seed: Run seed, from which every draw of this stage is derived.
    """

    def __init__(
        self,
        policy: PolicySettings,
        optimizer: OptimizerCallable = MasterAdamW,
        schedule: Schedule = Schedule(),
        gradient_clip_norm: float = 1.0,
        micro_batch_tokens: int = 4096,
        sampler: Sampler | None = None,
        sandbox: Sandbox | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__(policy, sampler, sandbox, seed)
        self.configure_training(optimizer, schedule, gradient_clip_norm, micro_batch_tokens)
        self.strict_loading = policy.lora is None  # checkpoints of adapters are without their base

    def configure_model(self) -> None:
        """Load the policy; beside adapters, know the base that they are trained on."""
        super().configure_model()
        if self.policy_settings.lora is not None and not hasattr(self, "_base_id"):
            self._base_id = fingerprint(BasePolicy(self.policy))

    @abstractmethod
    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Learn from one batch of problems."""

    def annotated(self, problems: Sequence[Problem]) -> TokenBatch:
        """The annotated solutions as one batch whose action mask selects the targets, [B, T]."""
        examples = self.problems.examples(problems)
        sequences, prompts = [e.ids for e in examples], [e.prompt_length for e in examples]
        return collate(sequences, prompts, self.problems.codec.pad_id).to(self.device)

    def cross_entropy(self, tokens: TokenBatch, weight: float = 1.0) -> MicroBatches:
        """Micro-batch losses that sum to ``weight`` times the mean cross-entropy over the action tokens of all ranks."""
        n_tokens = self.ranks.share(int(tokens.action_mask.sum()))

        def loss(rows: Tensor) -> Tensor:
            micro = take(tokens, rows)
            losses = token_cross_entropy(score(self.policy, micro).logprobs, micro.action_mask)
            return weight * token_mean(losses, micro.action_mask, n_tokens)

        return [partial(loss, rows) for rows in split(tokens, self.micro_batch_tokens)]

    def idle_loss(self) -> Tensor:
        """Two tokens through all of the policy, for nothing."""
        two = torch.full((1, 2), self.problems.codec.eos_id, device=self.device)
        scores = score(self.policy, TokenBatch(two, two >= 0, torch.tensor([[True, False]], device=self.device)))
        return 0.0 * (scores.logprobs.sum() + (0.0 if scores.values is None else scores.values.sum()))

    def used_in_parts(self) -> list[nn.Parameter]:
        """The LM head, which makes logits of so many positions at a time."""
        return list(self.policy.lm_head.parameters())

    def write_export(self, folder: Path, weights: bool = True) -> None:
        """Write the policy, its prompt form and its card."""
        codec, settings = self.problems.codec, self.policy_settings
        description = {
            "stage": self.stage,
            "base": settings.init_from,
            "from_scratch": settings.from_scratch,
            **codec.description(),
            "weights": self.weights if weights else "",
            **({"lora": asdict(settings.lora)} if settings.lora else {}),
            "inherited": {} if settings.from_scratch else inherited_metadata(settings.init_from),
            "example": {"question": EXAMPLE.question, "prompt": codec.prompt_text(EXAMPLE)},
        }
        card = model_card(Path(self.trainer.default_root_dir), description)
        adapter_of = settings.init_from if settings.lora and settings.lora.export == "adapter" else None
        export_folder(
            self.policy,
            codec.tokenizer,
            folder,
            description,
            str(card),
            adapter_of,
            weights,
            stop_ids=codec.stop_ids,
            unused_ids=codec.vocabulary.unused(self.policy.vocab_size),
        )

    # ---- adapters

    def kept(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Without the frozen weights beside adapters: a checkpoint need not hold what ``init_from`` holds."""
        parameters = self.named_parameters(remove_duplicate=False)  # a tied head has a name of its own
        frozen = {name for name, parameter in parameters if not parameter.requires_grad}
        return {name: tensor for name, tensor in state.items() if name not in frozen}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which base the adapters have; its weights are those of ``init_from``."""
        super().on_save_checkpoint(checkpoint)
        if self.policy_settings.lora is not None:
            checkpoint["reft_base"] = self._base_id

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse adapters of another base than the one that they were trained on."""
        super().on_load_checkpoint(checkpoint)
        if self.policy_settings.lora is not None and checkpoint["reft_base"] != self._base_id:
            raise UserError(
                f"{self.policy_settings.init_from} is not the model any more that the adapters in {self.trainer.ckpt_path} "
                f"were trained on: bring that one back, or test the run's hf/ folder with --ckpt_path"
            )

    def on_test_start(self) -> None:
        """Test what is exported: the merged weights, which in bfloat16 are not quite base and adapters side by side."""
        merge(self.policy.lm)

    def on_validation_start(self) -> None:
        """As ``on_test_start``, where it is not a pause of training."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            merge(self.policy.lm)

"""Supervised fine-tuning on annotated solutions: the warm-up and the baseline of ReFT."""

from __future__ import annotations

from reft_pl.modules.policy_module import PolicyModule
from reft_pl.types import Problem


class SFTModule(PolicyModule):
    """Maximise the likelihood of the annotated solution given the question (paper, section 3.1).

    The loss is the mean cross-entropy over the target tokens of the whole batch, EOS included.
    """

    stage = "sft"

    def setup(self, stage: str) -> None:
        """Tokenise the annotated solutions, and fail before training if one is missing."""
        if stage == "fit":
            self.problems.prepare_examples()

    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Take one optimizer step on the batch's annotated solutions."""
        self.train_with_dropout(self.policy, batch_idx)
        tokens = self.annotated(batch)
        with self.phases.phase("update", len(batch)) as progress:
            result = self.update(self.cross_entropy(tokens))
            progress.advance(len(batch), int(tokens.attention_mask.sum()))
        statistics = {f"train/{name}": value for name, value in result.items()}
        self.log_statistics({**statistics, **self.timing()})

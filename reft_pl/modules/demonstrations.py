"""The cross-entropy on annotated solutions that PPO adds to its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from reft_pl.errors import UserError
from reft_pl.modules.ppo_statistics import UpdateStatistics
from reft_pl.modules.stage_module import MicroBatches
from reft_pl.rollout.annotated import AnnotatedQuestions, annotated_weight
from reft_pl.types import Problem, TokenBatch

if TYPE_CHECKING:
    from reft_pl.modules.ppo import PPOModule


class Demonstrations:
    """A term of each optimizer step: the mean cross-entropy over the tokens of some annotated solutions.

    The solutions belong to the questions of the rollout, including those without samples in the update.

    Args:
        module: The PPO stage.
        coef: Weight of the term; 0 is off.
        batch_size: Solutions per optimizer step over all ranks; None is ``minibatch_size``.
        schedule: ``constant`` weight, or ``linear`` decay to 0 at the end of the learning-rate schedule.

    Source: PPO-ptx, arXiv 2203.02155, eq. 2, with demonstrations in place of pretraining data; arXiv 2508.11408.
    """

    def __init__(self, module: PPOModule, coef: float, batch_size: int | None, schedule: Literal["constant", "linear"]) -> None:
        self._module = module
        self.coef = coef
        self.batch_size = batch_size
        self.schedule = schedule

    def prepare(self) -> None:
        """Tokenise the annotated solutions before training.

        Raises:
            UserError: no training problem has a solution, one is too long, or nothing ends a linear schedule.
        """
        if not self.coef:
            return
        module, trainer = self._module, self._module.trainer
        if all(problem.solution is None for problem in module.problems.train_problems):
            raise UserError(
                f"model.annotated_coef is {self.coef:g}, but no training problem has an annotated solution: set it to 0, or "
                "data.train to a source with solutions"
            )
        module.problems.prepare_examples(every=False)
        if self.schedule == "linear" and trainer.max_epochs == trainer.max_steps == -1 and module.schedule.epochs is None:
            raise UserError("model.annotated_schedule is linear, but the run has no end: set trainer.max_epochs")

    @property
    def weight(self) -> float:
        """Weight of the term in this iteration; 0 during value warm-up."""
        module = self._module
        if not self.coef or module.warms_up_values:
            return 0.0
        return annotated_weight(self.coef, self.schedule, module.step, module.iterations)

    def of_rollout(self, problems: Sequence[Problem]) -> AnnotatedQuestions:
        """Return the annotated questions of a rollout; ``problems`` are this rank's. Empty if the weight is 0."""
        module, ranks = self._module, self._module.ranks
        mine = problems if self.weight else []
        size = self.batch_size or module.minibatch_size
        return AnnotatedQuestions(mine, ranks.places(len(mine)), ranks.gather, size, module.seed, module.step)

    def losses(self, examples: TokenBatch, statistics: UpdateStatistics) -> MicroBatches:
        """Build micro-batch losses that sum to the term of a mini-batch.

        Args:
            examples: The annotated solutions of this rank in the mini-batch, possibly none.
            statistics: Receives the term.
        """
        weight = self.weight
        return statistics.watched("annotated", self._module.cross_entropy(examples, weight)) if weight else []

    def statistics(self) -> dict[str, float]:
        """Return the current weight by TensorBoard name; empty if the term is off."""
        return {"update/annotated_coef": self.weight} if self.coef else {}

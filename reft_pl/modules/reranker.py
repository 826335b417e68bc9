"""Train the reranker, a classifier that scores sampled solutions to select one at test time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its usual name)

from reft_pl.data.reranker_data import Candidate, as_groups, as_problem, mixed_groups
from reft_pl.data.sample_file import SampledQuestion
from reft_pl.errors import UserError
from reft_pl.evaluation.at_k import PerQuestion, reranking_figures, sampling_figures
from reft_pl.evaluation.files import update_results, write_aside
from reft_pl.evaluation.model_card import model_card
from reft_pl.evaluation.reranker_scores import calibration_error, in_group_auc, solution_scores
from reft_pl.models.activation_checkpointing import checkpoint_layers
from reft_pl.models.base_model_metadata import inherited_metadata
from reft_pl.models.classifier import load_classifier
from reft_pl.models.compilation import compile_layers
from reft_pl.models.fingerprint import weights_id
from reft_pl.models.micro_batches import by_size
from reft_pl.models.reranker import CORRECT, Reranker, export_reranker
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.schedule import Schedule
from reft_pl.modules.stage_module import MicroBatches, StageModule
from reft_pl.rl.ranking_losses import groupwise_loss, pointwise_loss
from reft_pl.strategies.zero import whole_weights

Ranked = tuple[SampledQuestion, list[float]]
"""A sampled question with the scores of its samples."""


class RerankerModule(StageModule):
    """Train a classifier of correct and wrong solutions, and rank the samples of a question by its score (paper, section 4.3).

    The data are sample files (``data.samples``): the distinct solutions that the warm-up policy sampled for each training
    question, labelled by whether the executed answer is correct. Validation measures votes and choices besides the loss,
    because the purpose is to rank the samples of one question.

    Args:
        policy: The policy that wrote the samples; its trunk initializes the classifier. Or a classifier.
        schedule: Learning-rate schedule.
        loss: ``pointwise`` (the paper): cross-entropy of each solution. ``groupwise``: softmax over the solutions of a question
            (``rl.ranking_losses``); ``data.batch_size`` then counts questions, and those without a correct or a wrong solution
            are left out. Its scores order solutions, but are not probabilities.
        count_duplicates: Weight a solution by how often it was sampled.
        balance_classes: Weight the solutions so that correct and wrong ones count the same in total. Pointwise only.
        **kwargs: Settings of ``StageModule``; ``seed`` initializes the classification head.
    """

    stage = "reranker"
    validation_figures = ("val/rerank", "val/weighted", "val/tie_break", "val/auc", "val/calibration_error", "val/loss")

    def __init__(
        self,
        policy: PolicySettings,
        schedule: Schedule = Schedule("linear", warmup=0.1),
        loss: Literal["pointwise", "groupwise"] = "pointwise",
        count_duplicates: bool = False,
        balance_classes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, schedule=schedule, **kwargs)
        if policy.lora is not None:
            raise UserError("the reranker trains all weights: remove model.policy.lora")
        if loss == "groupwise" and balance_classes:
            raise UserError("model.balance_classes does not apply to a groupwise loss: remove it, or set model.loss: pointwise")
        self.loss = loss
        self.count_duplicates = count_duplicates
        self.balance_classes = balance_classes
        self._class_weights = (1.0, 1.0)
        self._ranked: list[Ranked] = []
        self._tested: dict[int, list[Ranked]] = {}

    def configure_model(self) -> None:
        """Load a classifier, or create one from a policy's trunk."""
        if not hasattr(self, "reranker"):
            settings = self.policy_settings
            classifier = load_classifier(
                settings.init_from, settings.torch_dtype, self.seed, settings.attention, settings.trust_remote_code
            )
            rows = int(classifier.get_input_embeddings().get_parameter("weight").shape[0])
            self.problems.codec.check_embeddings(rows, settings.init_from)
            if settings.gradient_checkpointing:
                checkpoint_layers(classifier)
            if settings.compile:
                compile_layers(classifier)
            self.reranker = Reranker(classifier)

    @property
    def weights(self) -> str:
        """Digest of the classifier's current weights, which every figure in ``results.json`` names."""
        return weights_id(self.reranker.classifier)

    # ---- learning

    def setup(self, stage: str) -> None:
        """Check that there are samples; for ``fit``, record the number of solutions and of correct ones."""
        if not self.problems.samples:
            raise UserError("the reranker trains on sampled solutions: set data.samples as in configs/reranker.yaml")
        if stage == "fit":
            found = self.problems.candidates
            self.problems.group_candidates = self.loss == "groupwise"
            correct = sum(candidate.correct for candidate in found)
            if correct in (0, len(found)):
                raise UserError(
                    f"{correct} of {len(found)} training solutions are correct: data.samples needs correct and wrong ones"
                )
            if self.problems.group_candidates and not mixed_groups(found):
                raise UserError(
                    "no training question has both correct and wrong solutions, which model.loss: groupwise compares: set "
                    "model.loss to pointwise, or sample more"
                )
            self.weigh_classes(found)
            questions = len({candidate.problem.id for candidate in found})
            share, taken = correct / len(found), self._taken()
            part = f"; an epoch uses {taken:,} of them" if taken < len(found) else ""
            rank_zero_info(
                f"training on {len(found):,} distinct solutions of {questions:,} questions, {share:.1%} correct{part}"
            )
            learned = {"solutions": len(found), "right": share, "solutions_an_epoch": taken}
            if self.trainer.is_global_zero:
                update_results(Path(self.trainer.default_root_dir), "data", learned)

    def _taken(self) -> int:
        """Return the number of solutions in an epoch, within ``trainer.limit_train_batches``."""
        batches, limit = self.problems.train_dataloader().global_batches(0), self.trainer.limit_train_batches
        kept = int(limit * len(batches)) if isinstance(limit, float) else limit
        return sum(len(group) for batch in batches[:kept] for group in as_groups(batch))

    def training_step(self, batch: list[Candidate] | list[list[Candidate]], batch_idx: int) -> None:
        """Take one optimizer step on the solutions of the batch (pointwise), or of its questions (groupwise)."""
        self.train_with_dropout(self.reranker, batch_idx)
        groups = as_groups(batch)
        with self.phases.phase("update", sum(map(len, groups))) as progress:
            result = self.update(self.losses(groups))
            progress.advance(sum(map(len, groups)))
        statistics = {f"train/{name}": value for name, value in result.items()}
        self.log_statistics({**statistics, **self.timing()})

    def sequences(self, batch: Sequence[Candidate]) -> list[list[int]]:
        """Tokenise question and solution of each candidate."""
        return [self.problems.codec.joint_ids(candidate.problem, [candidate.text])[0] for candidate in batch]

    def losses(self, groups: Sequence[Sequence[Candidate]]) -> MicroBatches:
        """Build micro-batch losses that sum to the mean over all ranks: over weighted solutions, or over questions.

        Args:
            groups: Single solutions, or the solutions of each question. A group is never split, however long it is.
        """
        sequences = [self.sequences(group) for group in groups]
        pointwise = self.loss == "pointwise"
        n = self.ranks.share(sum(self._weight(c) for group in groups for c in group) if pointwise else len(groups))

        def loss(rows: Sequence[int]) -> Tensor:
            members = [candidate for row in rows for candidate in groups[row]]
            logits = self.reranker([sequence for row in rows for sequence in sequences[row]])
            margins = logits[:, CORRECT] - logits[:, 1 - CORRECT]
            labels = torch.tensor([c.correct for c in members], device=margins.device)
            weights = torch.tensor([self._weight(c) for c in members], device=margins.device)
            if pointwise:
                return (weights * pointwise_loss(margins, labels)).sum() / n
            index = torch.tensor([i for i, row in enumerate(rows) for _ in groups[row]], device=margins.device)
            return groupwise_loss(margins, labels, weights, index, len(rows)).sum() / n

        sizes = [(len(group), max(map(len, group))) for group in sequences]
        return [partial(loss, rows) for rows in by_size(sizes, self.micro_batch_tokens)]

    def weigh_classes(self, found: Sequence[Candidate]) -> None:
        """Set the weights of the classes from all training solutions."""
        if self.balance_classes:
            wrong, correct = (sum(self._count(c) for c in found if c.correct is kind) for kind in (False, True))
            self._class_weights = ((wrong + correct) / (2 * wrong), (wrong + correct) / (2 * correct))

    def _count(self, candidate: Candidate) -> int:
        return candidate.count if self.count_duplicates else 1

    def _weight(self, candidate: Candidate) -> float:
        """Return the weight of a solution in the loss."""
        return self._count(candidate) * self._class_weights[candidate.correct]

    def idle_loss(self) -> Tensor:
        """Pass one token through the classifier, with weight 0."""
        logits: Tensor = self.reranker([[(self.reranker.pad_id + 1) % 2]])
        return 0.0 * logits.sum()

    # ---- ranking

    def scores(self, item: SampledQuestion) -> list[float]:
        """Return the score of each sample, [n]."""
        texts = [prediction.text for prediction in item.predictions]
        return solution_scores(self.reranker, self.problems.codec, as_problem(item), texts, self.micro_batch_tokens)

    def rank(self, batch: Sequence[SampledQuestion]) -> list[Ranked]:
        """Score the samples of each question."""
        with whole_weights(self.trainer.strategy):  # the number of micro-batches differs between ranks
            return [(item, self.scores(item)) for item in batch]

    def gathered(self, ranked: list[Ranked]) -> list[Ranked]:
        """Gather the scored questions of all ranks, sorted by id."""
        everyones = [item for of_rank in self.ranks.gather(ranked) for item in of_rank]
        return sorted(everyones, key=lambda item: item[0].id)

    def validation_step(self, batch: list[SampledQuestion], batch_idx: int) -> None:
        """Score the samples of held-out questions."""
        self._ranked += self.rank(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of each way to choose among all n samples, and the quality of the scores."""
        ranked, figures = self.gathered(self._ranked), PerQuestion()
        self._ranked = []
        for item, scores in ranked:
            figures.update(reranking_figures(item, scores))
        if ranked:
            means, n = {name: mean for name, (mean, *_) in figures.summary().items()}, len(ranked[0][1])
            for name in ("rerank", "weighted", "tie_break"):
                self.log(f"val/{name}", means[f"{name}@{n}"], prog_bar=name == "weighted")
            everything = [score for _, scores in ranked for score in scores]
            verdicts = [verdict for item, _ in ranked for verdict in item.verdicts]
            self.log("val/auc", in_group_auc((scores, item.verdicts) for item, scores in ranked))
            self.log("val/calibration_error", calibration_error(everything, verdicts))
            self.log("val/loss", F.binary_cross_entropy(torch.tensor(everything), torch.tensor(verdicts).float()))

    def test_step(self, batch: list[SampledQuestion], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score the samples of test questions."""
        self._tested.setdefault(dataloader_idx, []).extend(self.rank(batch))

    def on_test_epoch_end(self) -> None:
        """Write rerank@k, weighted voting and the sampling figures to ``results.json``, and the scores to ``scores/``."""
        run_dir, weights = Path(self.trainer.default_root_dir), self.weights
        for index, name in enumerate(self.problems.test_names):
            figures = PerQuestion()
            place = {item.id: i for i, item in enumerate(self.problems.sampled[name])}
            ranked = sorted(self.gathered(self._tested.get(index, [])), key=lambda pair: place[pair[0].id])
            for item, scores in ranked:
                figures.update(reranking_figures(item, scores) | sampling_figures(item))
            n, summary = len(ranked[0][1]), figures.summary()
            self.log(f"test/rerank/{name}", summary[f"rerank@{n}"][0])
            if self.trainer.is_global_zero:
                lines = (json.dumps({"item_id": item.id, "scores": scores}) + "\n" for item, scores in ranked)
                write_aside(run_dir / "scores" / f"{name}.jsonl", "".join(lines))
                about = {"samples": self.problems.samples[name], "questions": len(ranked), "n": n, "weights": weights}
                update_results(run_dir, "rerank", {name: {**about, **summary}})
        self._tested.clear()

    # ---- export

    def write_export(self, folder: Path, weights: bool = True) -> None:
        """Write the classifier, for ``AutoModelForSequenceClassification``, and its model card."""
        codec = self.problems.codec
        base = self.policy_settings.init_from
        digest = self.weights if weights else ""
        description = {"stage": self.stage, "base": base, **codec.description(), "weights": digest}
        description["inherited"] = inherited_metadata(base)
        card = model_card(Path(self.trainer.default_root_dir), description)
        export_reranker(self.reranker, codec.tokenizer, folder, description, str(card), weights)

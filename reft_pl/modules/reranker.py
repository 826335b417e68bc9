"""Train the reranker, a classifier that scores sampled solutions to select one at test time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its usual name)

from reft_pl.data.reranker_data import Candidate, as_problem
from reft_pl.data.sample_file import SampledQuestion
from reft_pl.errors import UserError
from reft_pl.evaluation.at_k import PerQuestion, reranking_figures, sampling_figures
from reft_pl.evaluation.files import update_results, write_aside
from reft_pl.evaluation.model_card import model_card
from reft_pl.models.activation_checkpointing import checkpoint_layers
from reft_pl.models.base_model_metadata import inherited_metadata
from reft_pl.models.classifier import load_classifier
from reft_pl.models.compilation import compile_layers
from reft_pl.models.fingerprint import weights_id
from reft_pl.models.reranker import CORRECT, Reranker, export_reranker
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.schedule import Schedule
from reft_pl.modules.stage_module import MicroBatches, StageModule
from reft_pl.strategies.zero import whole_weights

Ranked = tuple[SampledQuestion, list[float]]
"""A sampled question with the scores of its samples."""


class RerankerModule(StageModule):
    """Train a classifier of correct and wrong solutions, and rank the samples of a question by its score (paper, section 4.3).

    The data are sample files (``data.samples``): the distinct solutions that the warm-up policy sampled for each training
    question, labelled by whether the executed answer is correct. Validation uses rerank@n rather than the loss, because the
    purpose is to rank the samples of one question.

    Args:
        policy: The policy that wrote the samples; its trunk initializes the classifier. Or a classifier.
        schedule: Learning-rate schedule.
        **kwargs: Settings of ``StageModule``; ``seed`` initializes the classification head.
    """

    stage = "reranker"
    validation_figures = ("val/rerank", "val/weighted", "val/loss")

    def __init__(self, policy: PolicySettings, schedule: Schedule = Schedule("linear", warmup=0.1), **kwargs: Any) -> None:
        super().__init__(policy, schedule=schedule, **kwargs)
        if policy.lora is not None:
            raise UserError("the reranker trains all weights: remove model.policy.lora")
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
        """Check that there are samples, and for ``fit`` record how many solutions and how many are correct."""
        if not self.problems.samples:
            raise UserError("the reranker trains on sampled solutions: set data.samples as in configs/reranker.yaml")
        if stage == "fit":
            found = self.problems.candidates
            correct = sum(candidate.correct for candidate in found)
            if correct in (0, len(found)):
                raise UserError(
                    f"{correct} of {len(found)} training solutions are correct: data.samples needs correct and wrong ones"
                )
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
        return sum(map(len, batches[:kept]))

    def training_step(self, batch: list[Candidate], batch_idx: int) -> None:
        """Take one optimizer step on the batch's solutions."""
        self.train_with_dropout(self.reranker, batch_idx)
        labels = torch.tensor([candidate.correct for candidate in batch], device=self.device).long()
        with self.phases.phase("update", len(batch)) as progress:
            result = self.update(self.losses(self.sequences(batch), labels))
            progress.advance(len(batch))
        statistics = {f"train/{name}": value for name, value in result.items()}
        self.log_statistics({**statistics, **self.timing()})

    def sequences(self, batch: Sequence[Candidate]) -> list[list[int]]:
        """Tokenise question and solution of each candidate."""
        return [self.problems.codec.joint_ids(candidate.problem, [candidate.text])[0] for candidate in batch]

    def losses(self, sequences: Sequence[Sequence[int]], labels: Tensor) -> MicroBatches:
        """Build micro-batch losses that sum to the mean cross-entropy over all ranks' batches."""
        n = self.ranks.share(len(sequences))

        def loss(rows: Sequence[int]) -> Tensor:
            logits = self.reranker([sequences[row] for row in rows])
            losses: Tensor = F.cross_entropy(logits, labels[rows], reduction="sum")
            return losses / n

        return [partial(loss, rows) for rows in by_length(sequences, self.micro_batch_tokens)]

    def idle_loss(self) -> Tensor:
        """Pass one token through the classifier, with weight 0."""
        logits: Tensor = self.reranker([[(self.reranker.pad_id + 1) % 2]])
        return 0.0 * logits.sum()

    # ---- ranking

    def scores(self, item: SampledQuestion) -> list[float]:
        """Return the score of each sample, [n]: the probability that it is correct. Equal texts have equal scores."""
        texts = list(dict.fromkeys(prediction.text for prediction in item.predictions))
        sequences = self.problems.codec.joint_ids(as_problem(item), texts)
        probabilities = torch.zeros(len(texts))
        self.reranker.eval()
        with torch.no_grad():
            for rows in by_length(sequences, self.micro_batch_tokens):
                logits = self.reranker([sequences[row] for row in rows])
                probabilities[rows] = logits.softmax(-1)[:, CORRECT].cpu()
        of_text = dict(zip(texts, probabilities.tolist(), strict=True))
        return [of_text[prediction.text] for prediction in item.predictions]

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
        """Log ``val/rerank`` (rerank@n, which selects the best checkpoint), ``val/weighted`` and ``val/loss``."""
        figures, losses = PerQuestion(), []
        for item, scores in self.gathered(self._ranked):
            figures.update(reranking_figures(item, scores))
            labels = torch.tensor(item.verdicts, dtype=torch.float32)
            losses.append(F.binary_cross_entropy(torch.tensor(scores), labels, reduction="none"))
        self._ranked = []
        if losses:
            means = {name: mean for name, (mean, *_) in figures.summary().items()}
            n = max(int(name.split("@")[1]) for name in means)
            self.log("val/rerank", means[f"rerank@{n}"], prog_bar=True)
            self.log("val/weighted", means[f"weighted@{n}"])
            self.log("val/loss", torch.cat(losses).mean())

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


def by_length(sequences: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Yield indices in groups, longest sequences first; rows times longest row is at most ``max_tokens`` (or one row)."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    start = 0
    while start < len(order):
        rows = max(1, max_tokens // len(sequences[order[start]]))
        yield order[start : start + rows]
        start += rows

"""The reranker: a classifier that estimates the probability that a solution is correct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reft_pl.models.export import save_model, write_description
from reft_pl.models.folders import replace_folder
from reft_pl.models.micro_batches import by_size

CORRECT = 1
"""Class index of correct solutions; wrong ones are class 0."""


class Reranker(nn.Module):
    """A two-class sequence classifier with right-padded batches.

    ``transformers`` classifiers find a row's last token by the padding id. A real token with that id at the end of a row would
    count as padding, so rows must not end in EOS (in the paper, the reranker's input has no EOS).

    Args:
        classifier: A ``transformers`` classifier with two classes and ``config.pad_token_id``.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier
        self.pad_id = int(classifier.config.pad_token_id)

    def forward(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Compute the logits of the two classes, [B, 2] float32.

        Args:
            sequences: B non-empty token sequences of question and solution.
        """
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        width = int(lengths.max())
        ids = torch.tensor([[*sequence, *[self.pad_id] * (width - len(sequence))] for sequence in sequences])
        mask = torch.arange(width) < lengths[:, None]
        device = self.classifier.device
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.long().to(device)}
        logits: Tensor = self.classifier(**inputs, use_cache=False).logits
        return logits.float()

    def probabilities(self, sequences: Sequence[Sequence[int]], max_tokens: int) -> list[float]:
        """Return the probability that each of B solutions is correct, without gradient or dropout.

        Args:
            sequences: B non-empty token sequences.
            max_tokens: Upper bound of a micro-batch: rows times the longest row.
        """
        found = torch.zeros(len(sequences))
        self.eval()
        with torch.no_grad():
            for rows in by_size([(1, len(sequence)) for sequence in sequences], max_tokens):
                found[rows] = self([sequences[row] for row in rows]).softmax(-1)[:, CORRECT].cpu()
        return found.tolist()


def export_reranker(
    reranker: Reranker,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    description: Mapping[str, object],
    card: str | None = None,
    weights: bool = True,
) -> None:
    """Write a folder that ``AutoModelForSequenceClassification`` loads anywhere, replacing an existing one atomically.

    ``weights=False`` omits the weights, to check that the rest can be written.
    """
    reranker.classifier.config.id2label = {0: "wrong", CORRECT: "correct"}
    reranker.classifier.config.label2id = {"wrong": 0, "correct": CORRECT}
    with replace_folder(folder) as fresh:
        save_model(reranker.classifier, fresh, None if weights else {})
        tokenizer.save_pretrained(fresh)
        write_description(fresh, description, card)
